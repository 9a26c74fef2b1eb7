//! The law of collecting file by file: it is collecting from scratch, and what was not touched stays where it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use translators::rules::{Collection, Parsed, Text, collect, parse};

const FILES: [&str; 4] = ["a.yaml", "b.yaml", "c/d.yaml", "e.json"];

/// A document of few keys, so that files define the same; some are broken, with and without a key that can be told.
fn document() -> impl Strategy<Value = String> {
    (0..4u8, 0..6u8, 1..3u8).prop_map(|(name, shape, port)| {
        let spec = match shape {
            0 => "{prots: []}".to_owned(),
            1 => return format!("# broken\n{name}: [\n"),
            2 => return "# nothing\n".to_owned(),
            _ => format!("{{ports: [{{name: http, port: {port}, protocol: http}}]}}"),
        };
        format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: s-{name}, namespace: shop}}\nspec: {spec}\n"
        )
    })
}

/// What happens to a file: it holds these documents now, or has gone.
fn changes() -> impl Strategy<Value = Vec<(usize, Option<Vec<String>>)>> {
    let documents = proptest::option::weighted(0.8, proptest::collection::vec(document(), 0..6));
    proptest::collection::vec((0..FILES.len(), documents), 1..24)
}

fn broken_count(parsed: &[Parsed]) -> usize {
    parsed.iter().map(|parsed| parsed.broken.len()).sum()
}

proptest! {
    #[test]
    fn collecting_file_by_file_is_collecting_from_scratch(changes in changes()) {
        let mut collection: Collection<&str> = Collection::default();
        let mut texts: BTreeMap<&str, Text> = BTreeMap::new();
        for (file, documents) in changes {
            let file = FILES[file];
            let before = collection.objects().clone();
            match documents {
                Some(documents) => {
                    let former = texts.entry(file).or_default();
                    if let Some((text, _)) = former.edited(file, &documents.join("---\n")) {
                        *former = text;
                    }
                    prop_assert_eq!(former.parsed(), parse(file, &documents.join("---\n")));
                    collection.put_file(file, former.parsed());
                }
                None => {
                    collection.remove_file(&file);
                    texts.remove(file);
                }
            }
            let parsed: Vec<Parsed> = texts.values().map(Text::parsed).collect();
            let broken: Vec<_> = texts.iter().flat_map(|(file, text)| text.parsed().broken.into_iter().map(move |key| (*file, key))).collect();
            let scratch = collect(parsed.clone());
            prop_assert_eq!(collection.objects(), &scratch.objects);
            prop_assert_eq!(collection.findings().cloned().collect::<Vec<_>>(), &scratch.findings[..]);
            prop_assert_eq!(collection.broken().map(|(file, key)| (*file, key.clone())).collect::<Vec<_>>(), broken);
            let all = || parsed.iter().flat_map(|parsed| &parsed.objects);
            for object in all() {
                let first = all().filter(|o| o.key == object.key).min_by_key(|o| (&o.file, o.line)).expect("itself");
                prop_assert!(scratch.objects.get(&object.key).is_some_and(|home| Arc::ptr_eq(home, first)));
            }
            prop_assert_eq!(scratch.findings.len(), broken_count(&parsed) + all().count() - scratch.objects.len());
            // An object is the one that its file holds, and one of another file that was and is in force stays.
            for (key, object) in collection.objects() {
                prop_assert!(all().any(|held| Arc::ptr_eq(held, object)), "{key} is a copy");
                if let Some(former) = before.get(key).filter(|former| *former.file != *file && object.file == former.file) {
                    prop_assert!(Arc::ptr_eq(former, object), "{key} of another file is another allocation");
                }
            }
        }
    }
}
