//! A configuration that changes an object at a time, as the sources pass it on.

use super::*;
use translators::name::ObjectKey;

/// The inputs, changed in place; what did not change is shared between two of them.
#[derive(Debug, Clone, Default)]
pub struct World {
    objects: Objects,
    pub instances: translators::mesh::Instances,
}

impl World {
    /// Writes an object, which has a file of its own.
    pub fn put(&mut self, kind: &str, name: &str, spec: &str) -> ObjectKey {
        let (namespace, name) = name.split_once('/').expect("a qualified name");
        let text = format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
        let parsed = translators::rules::parse(&format!("{kind}-{namespace}-{name}.yaml"), &text);
        assert_eq!((parsed.findings.as_slice(), parsed.objects.len()), (&[][..], 1), "{text}");
        let object = Arc::clone(&parsed.objects[0]);
        let key = object.key.clone();
        if self.objects.get(&key).is_none_or(|held| held.text != object.text) {
            self.objects.insert(key.clone(), object);
        }
        key
    }

    /// Removes an object.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// A proxy of `workload`, which has accepted `listeners`.
    pub fn connect(&mut self, workload: &str, node: &str, listeners: &[&str], has_certificate: bool) {
        let instance = Instance {
            workload: workload.parse().expect("valid"),
            node: node.to_owned(),
            address: [127, 0, 0, 1].into(),
            listeners: listeners.iter().map(|name| (*name).to_owned()).collect(),
            has_certificate,
        };
        self.instances.insert(instance.key(), Arc::new(instance));
    }

    pub fn inputs(&self) -> Inputs {
        let files = FileState { synced: true, objects: self.objects.clone(), ..FileState::default() };
        Inputs { files: Arc::new(files), instances: self.instances.clone() }
    }
}
