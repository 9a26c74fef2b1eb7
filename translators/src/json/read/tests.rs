//! Proto-JSON: what is read, and every way in which it does not fit.

use proptest::prelude::*;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::runtime::v3 as runtime_pb;
use proto::google::protobuf as google_pb;
use serde_json::json;

use super::super::{from_json, message, to_json};
use super::*;

fn misfits(type_name: &str, value: Value) -> Vec<(String, Reason)> {
    let (_, misfits) = from_json(type_name, &value).expect("the type is known");
    misfits.into_iter().map(|misfit| (misfit.pointer, misfit.reason)).collect()
}

#[test]
fn what_is_read_is_what_a_typed_message_is() {
    let number = google_pb::Value { kind: Some(google_pb::value::Kind::NumberValue(1.5)) };
    let one = google_pb::Struct { fields: [("n".to_owned(), number)].into() };
    let typed = cluster_pb::Cluster {
        name: "a".into(),
        connect_timeout: Some(google_pb::Duration { seconds: 1, nanos: 500_000_000 }),
        per_connection_buffer_limit_bytes: Some(google_pb::UInt32Value { value: 65_536 }),
        lb_policy: cluster_pb::cluster::LbPolicy::Maglev.into(),
        cluster_discovery_type: Some(cluster_pb::cluster::ClusterDiscoveryType::Type(3)),
        metadata: Some(core_pb::Metadata { filter_metadata: [("one".to_owned(), one)].into(), ..Default::default() }),
        ..Default::default()
    };
    let snake = json!({
        "name": "a", "connect_timeout": "1.5s", "per_connection_buffer_limit_bytes": 65536, "lb_policy": "MAGLEV",
        "type": "EDS", "metadata": {"filter_metadata": {"one": {"n": 1.5}}}, "load_assignment": null,
    });
    let camel = json!({
        "name": "a", "connectTimeout": "1.5s", "perConnectionBufferLimitBytes": "65536", "lbPolicy": 5,
        "type": 3, "metadata": {"filterMetadata": {"one": {"n": 1.5}}}, "altStatName": "",
    });
    for value in [snake, camel] {
        let read = from_json("envoy.config.cluster.v3.Cluster", &value).expect("a known type");
        assert_eq!(read, (typed.encode_to_vec(), Vec::new()), "{value}");
    }
}

#[test]
fn every_field_of_every_resource_is_read_back() {
    let mut fields = 0;
    for kind in crate::resource::Kind::ALL {
        let descriptor = descriptor(kind.type_name()).expect("a known type");
        for field in descriptor.fields() {
            let mut one = DynamicMessage::new(descriptor.clone());
            fill(&mut one, &field, 3);
            let value = to_json(kind.type_name(), &one.encode_to_vec()).expect("its own type");
            let (bytes, misfits) = from_json(kind.type_name(), &value).expect("a known type");
            assert_eq!(misfits, [], "{value}");
            let back = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()).expect("it decodes");
            assert_eq!(back, one, "{} {}", kind.type_name(), field.name());
            fields += 1;
        }
    }
    assert!(fields > 100, "{fields}");
}

/// Sets a field, and within a message every field, but one of each `oneof`.
fn fill(message: &mut DynamicMessage, field: &FieldDescriptor, depth: usize) {
    let value = match field.kind() {
        FieldKind::Message(entry) if field.is_map() => {
            let value = sample(&entry.map_entry_value_field(), depth);
            let key = match sample(&entry.map_entry_key_field(), depth) {
                ProtoValue::String(key) => prost_reflect::MapKey::String(key),
                ProtoValue::U32(key) => prost_reflect::MapKey::U32(key),
                ProtoValue::U64(key) => prost_reflect::MapKey::U64(key),
                other => panic!("a map with the key {other:?}"),
            };
            ProtoValue::Map([(key, value)].into())
        }
        _ if field.is_list() => ProtoValue::List(vec![sample(field, depth), sample(field, depth)]),
        _ => sample(field, depth),
    };
    message.set_field(field, value);
}

fn sample(field: &FieldDescriptor, depth: usize) -> ProtoValue {
    match field.kind() {
        FieldKind::Message(inner) => {
            let mut message = DynamicMessage::new(inner.clone());
            match inner.full_name() {
                "google.protobuf.Any" => {
                    let url = "type.googleapis.com/envoy.config.core.v3.Node".to_owned();
                    let value = core_pb::Node { id: "n".into(), ..Default::default() }.encode_to_vec();
                    message.transcode_from(&google_pb::Any { type_url: url, value }).expect("an Any");
                }
                "google.protobuf.Value" => message.set_field_by_name("bool_value", ProtoValue::Bool(true)),
                "google.protobuf.ListValue" | "google.protobuf.Struct" => {}
                "google.protobuf.FieldMask" => {
                    message.set_field_by_name("paths", ProtoValue::List(vec![ProtoValue::String("a_b".into())]));
                }
                _ if depth > 0 => {
                    let mut chosen = std::collections::BTreeSet::new();
                    for field in inner.fields() {
                        let choice = field.containing_oneof().map(|choice| choice.name().to_owned());
                        if choice.is_none_or(|choice| chosen.insert(choice)) {
                            fill(&mut message, &field, depth - 1);
                        }
                    }
                }
                _ => {}
            }
            ProtoValue::Message(message)
        }
        FieldKind::Enum(choices) => ProtoValue::EnumNumber(choices.values().last().map_or(0, |choice| choice.number())),
        FieldKind::Bool => ProtoValue::Bool(true),
        FieldKind::String => ProtoValue::String("é".into()),
        FieldKind::Bytes => ProtoValue::Bytes(vec![1, 255].into()),
        FieldKind::Float => ProtoValue::F32(1.5),
        FieldKind::Double => ProtoValue::F64(-1.5),
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => ProtoValue::I32(7),
        FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => ProtoValue::I64(7),
        FieldKind::Uint32 | FieldKind::Fixed32 => ProtoValue::U32(7),
        FieldKind::Uint64 | FieldKind::Fixed64 => ProtoValue::U64(7),
    }
}

#[test]
fn maps_are_in_order_also_within_an_any() {
    let layer = |n: u32| (0..n).map(|n| (format!("key-{n}"), Value::from(n))).collect::<Map<_, _>>();
    let runtime = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    let value = json!({"name": "x", "typed_config": {"@type": runtime, "name": "r", "layer": layer(40)}});
    let name = "envoy.config.core.v3.TypedExtensionConfig";
    let (bytes, misfits) = from_json(name, &value).expect("a known type");
    assert_eq!(misfits, []);
    let any = core_pb::TypedExtensionConfig::decode(bytes.as_slice()).expect("it decodes").typed_config;
    let any = any.expect("it has a configuration");
    let runtime = runtime_pb::Runtime::decode(any.value.as_slice()).expect("it decodes");
    assert_eq!(runtime.layer.map(|layer| layer.fields.len()), Some(40));
    let mut keys: Vec<String> = (0..40).map(|n| format!("key-{n}")).collect();
    keys.sort();
    let at = |key: &String| {
        let entry = [&[10, u8::try_from(key.len()).expect("short")], key.as_bytes()].concat();
        any.value.windows(entry.len()).position(|at| at == entry)
    };
    let places: Vec<_> = keys.iter().map(at).collect();
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
}

#[test]
fn every_mistake_is_said_with_its_place() {
    let listener = "envoy.config.listener.v3.Listener";
    let value = json!({
        "name": 7,
        "adress": {},
        "statPrefix": "a", "stat_prefix": "b",
        "traffic_direction": "INBOND",
        "listener_filters_timeout": 5,
        "per_connection_buffer_limit_bytes": "many",
        "bind_to_port": "yes",
        "address": {"socket_address": {"port_value": 1}, "pipe": {}},
        "filter_chains": [{"filters": [{"typed_config": {"stat_prefix": "x"}}, 5]}, {"filters": {}}],
        "access_log": [{"typed_config": {"@type": "envoy.extensions.access_loggers.file.v3.FileAcessLog"}}],
        "metadata": {"filter_metadata": {"a/b": 5}},
    });
    let said = misfits(listener, value);
    let shape = Reason::Shape;
    let unknown = Reason::UnknownType(
        "envoy.extensions.access_loggers.file.v3.FileAcessLog".into(),
        Some("did you mean \"envoy.extensions.access_loggers.file.v3.FileAccessLog\"?".into()),
    );
    let directions = ["UNSPECIFIED", "INBOUND", "OUTBOUND"].map(str::to_owned).to_vec();
    let known: Vec<String> =
        descriptor(listener).expect("known").fields().map(|field| field.name().to_owned()).collect();
    let expected = [
        ("/adress", Reason::UnknownField("adress".into(), known)),
        ("/stat_prefix", Reason::Twice("statPrefix".into())),
        ("/name", Reason::Unquoted("a number")),
        ("/address/socket_address", Reason::OneOf("address".into(), "pipe".into())),
        ("/filter_chains/0/filters/0/typed_config", Reason::MissingType),
        ("/filter_chains/0/filters/1", shape("a number", "a mapping")),
        ("/filter_chains/1/filters", shape("a mapping", "a list")),
        ("/per_connection_buffer_limit_bytes", shape("a text", "a whole number from 0 to 4294967295")),
        ("/metadata/filter_metadata/a~1b", shape("a number", "a mapping")),
        ("/listener_filters_timeout", shape("a number", "a duration in seconds, such as 1.5s,")),
        ("/traffic_direction", Reason::NotAChoice("INBOND".into(), directions)),
        ("/access_log/0/typed_config/@type", unknown),
        ("/bind_to_port", shape("a text", "true or false")),
    ];
    for (pointer, reason) in &expected {
        assert!(said.contains(&((*pointer).to_owned(), reason.clone())), "{pointer} is not in {said:#?}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
}

#[test]
fn a_number_that_does_not_fit_is_said() {
    let address = "envoy.config.core.v3.SocketAddress";
    for port in [json!(-1), json!(4_294_967_296u64), json!(1.5), json!([]), json!(""), json!(true)] {
        assert_eq!(misfits(address, json!({"port_value": port})).len(), 1, "{port}");
    }
    for port in [json!(80), json!("80"), json!(80.0), Value::Null] {
        assert_eq!(misfits(address, json!({"port_value": port})), [], "{port}");
    }
    for nothing in [json!({"typed_filter_metadata": {"x": null}}), json!({"filter_metadata": {"x": null}})] {
        assert_eq!(misfits("envoy.config.core.v3.Metadata", nothing).len(), 1);
    }
    for items in [json!([null]), json!([1.5]), json!([{}])] {
        let value = json!({"filter_chain_match": {"source_ports": items}});
        assert_eq!(misfits("envoy.config.listener.v3.FilterChain", value).len(), 1, "{items}");
    }
}

#[test]
fn a_type_of_somebodys_own_is_its_bytes_and_a_well_known_one_its_value() {
    let name = "envoy.config.core.v3.TypedExtensionConfig";
    let duration = google_pb::Duration { seconds: 1, nanos: 0 }.encode_to_vec();
    for (type_url, value) in [
        ("example.com/nobody.Knows", vec![1, 2, 255]),
        ("type.googleapis.com/google.protobuf.Duration", duration),
        ("type.googleapis.com/google.protobuf.Empty", Vec::new()),
    ] {
        let any = google_pb::Any { type_url: type_url.into(), value };
        let typed = core_pb::TypedExtensionConfig { name: "x".into(), typed_config: Some(any) };
        let read = from_json(name, &message(&typed)).expect("a known type");
        assert_eq!(read, (typed.encode_to_vec(), Vec::new()), "{type_url}");
    }
}

/// Trees whose members are called as those of Envoy's messages are, and hold anything.
fn anything() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "1s",
            "EDS",
            "5",
            "AQL/",
            "é~/",
            "envoy.config.core.v3.Node",
            "1970-01-01T00:00:00Z"
        ])
        .prop_map(Value::from),
        prop::sample::select(crate::resource::Kind::ALL.to_vec()).prop_map(|kind| Value::from(kind.type_url())),
        Just(Value::from("type.googleapis.com/google.protobuf.Any")),
        Just(Value::from("type.googleapis.com/google.protobuf.Struct")),
    ];
    let names = vec![
        "@type",
        "name",
        "value",
        "typed_config",
        "typedConfig",
        "type",
        "metadata",
        "filter_metadata",
        "a/b~",
        "typed_filter_metadata",
        "address",
        "pipe",
        "socket_address",
        "port_value",
        "filter_chains",
        "filters",
        "layer",
        "connect_timeout",
        "load_assignment",
        "endpoints",
        "lb_endpoints",
        "health_status",
        "routes",
        "virtual_hosts",
        "domains",
        "match",
        "prefix",
        "headers",
        "resource",
        "aliases",
        "ttl",
        "fields",
        "seconds",
        "resource_names",
    ];
    scalar.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.clone()), inner, 0..5)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is written, what is left of it is a message, and what is not has a place in what was written.
    #[test]
    fn anything_is_read_or_said(value in anything(), kind in prop::sample::select(crate::resource::Kind::ALL.to_vec())) {
        for name in [kind.type_name(), "google.protobuf.Any", "envoy.service.discovery.v3.Resource"] {
            let (bytes, misfits) = from_json(name, &value).expect("a known type");
            let descriptor = descriptor(name).expect("a known type");
            prop_assert!(DynamicMessage::decode(descriptor, bytes.as_slice()).is_ok(), "{value}");
            for misfit in &misfits {
                prop_assert!(value.pointer(&misfit.pointer).is_some(), "{misfit:?} of {value}");
            }
            prop_assert_eq!(from_json(name, &value).expect("a known type"), (bytes, misfits));
        }
    }
}

#[test]
fn what_envoy_takes_beside_its_own_types_is_known() {
    for name in [
        "xds.type.v3.TypedStruct",
        "udpa.type.v1.TypedStruct",
        "xds.type.matcher.v3.IPMatcher",
        "xds.type.matcher.v3.CelMatcher",
        "xds.type.matcher.v3.ServerNameMatcher",
        "xds.type.matcher.v3.HttpAttributesCelMatchInput",
    ] {
        let written = json!({"@type": format!("type.googleapis.com/{name}")});
        let (_, misfits) = from_json("google.protobuf.Any", &written).expect("an Any is known");
        assert_eq!(misfits, [], "{name}");
    }
}
