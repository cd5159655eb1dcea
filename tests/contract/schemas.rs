//! The JSON Schemas in `schemas/`: made from the types that read and write events, and true of every sample.

use std::collections::BTreeSet;

use domain::Fact;
use jsonschema::Validator;
use schemars::Schema;
use serde_json::{Value, json};

use crate::{kept, samples};

const DIRECTORY: &str = "schemas/events";
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const ADVICE: &str =
    "run `UPDATE=1 cargo test -p carousel-tests --test contract schema` once and look at what changed";

#[test]
fn every_schema_of_an_event_is_kept_as_it_is_made_and_no_other_file_beside_it() {
    let made = event_schemas();
    let names: BTreeSet<String> = made.iter().map(|(name, _)| name.clone()).collect();
    let found = kept::files_in(DIRECTORY);
    let mut wrong: Vec<String> = found
        .difference(&names)
        .map(|name| format!("{DIRECTORY}/{name}: no event is of this type; delete it"))
        .collect();
    for (name, schema) in &made {
        wrong.extend(kept::compare(
            &format!("{DIRECTORY}/{name}"),
            &kept::pretty(schema),
        ));
    }
    kept::none(wrong, ADVICE);
}

#[test]
fn every_kept_schema_is_valid_and_of_the_2020_12_dialect() {
    for (name, schema) in kept_schemas() {
        assert_eq!(schema["$schema"], DIALECT, "{name}");
        if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
            panic!("{name} is no JSON Schema: {error} at {}", error.instance_path());
        }
    }
}

#[test]
fn every_golden_sample_fits_its_schema_and_that_of_the_envelope() {
    let envelope = validator(&read(ENVELOPE));
    for sample in samples::all() {
        let golden = crate::golden::kept_value(&sample.name);
        let data = validator(&read(&format!(
            "{DIRECTORY}/{}",
            file_of(sample.fact.type_name())
        )));
        for (what, validator, value) in [("envelope", &envelope, &golden), ("data", &data, &golden["data"])] {
            let errors: Vec<String> = validator
                .iter_errors(value)
                .map(|e| format!("{e} at {}", e.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {what}: {errors:?}", sample.name);
        }
    }
}

/// A reader that follows the schema must read what a later version adds. Maps may close themselves: their keys are data.
#[test]
fn no_schema_forbids_fields_that_a_later_version_may_add() {
    for (name, schema) in kept_schemas() {
        let mut closed = Vec::new();
        closed_objects(&schema, "#", &mut closed);
        assert!(closed.is_empty(), "{name} forbids unknown fields at {closed:?}");
    }
}

/// What the schema calls required is what the decoder needs, and nothing else: in every place of every sample.
#[test]
fn a_schema_requires_a_field_exactly_when_the_decoder_does() {
    let mut wrong = Vec::new();
    for sample in samples::all() {
        let golden = crate::golden::kept_value(&sample.name);
        let schema = validator(&read(&format!(
            "{DIRECTORY}/{}",
            file_of(sample.fact.type_name())
        )));
        for pointer in fields_below(&golden["data"], "") {
            let mut without = golden.clone();
            remove(&mut without["data"], &pointer);
            let by_schema = schema.is_valid(&without["data"]);
            let by_decoder = sample.decoded(without.to_string().as_bytes()).is_ok();
            if by_schema != by_decoder {
                wrong.push(format!(
                    "{} without {pointer}: schema says {by_schema}, decoder {by_decoder}",
                    sample.name
                ));
            }
        }
    }
    kept::none(wrong, "the schema misleads those who write or read events by it");
}

/// The schema of the CloudEvents envelope, written by hand: it is the frame of every event.
const ENVELOPE: &str = "schemas/envelope.schema.json";

/// All schemas of events, with the names of their files.
fn event_schemas() -> Vec<(String, Value)> {
    let schemas = Fact::schemas().into_iter().zip(Fact::MEANINGS);
    schemas
        .map(|((type_name, schema), meaning)| (file_of(type_name), finished(type_name, meaning, schema)))
        .collect()
}

/// A type's schema with what a reader needs to recognise it.
fn finished(type_name: &str, meaning: &str, schema: Schema) -> Value {
    let mut value = schema.to_value();
    value["$schema"] = json!(DIALECT);
    value["$id"] = json!(format!("urn:carousel:event:{type_name}"));
    value["title"] = json!(type_name);
    value["description"] = json!(format!("The data of an event of this type. {meaning}"));
    value
}

pub(crate) fn file_of(type_name: &str) -> String {
    format!("{type_name}.schema.json")
}

fn kept_schemas() -> Vec<(String, Value)> {
    let events = kept::files_in(DIRECTORY)
        .into_iter()
        .map(|name| format!("{DIRECTORY}/{name}"));
    let all: Vec<_> = events
        .chain([ENVELOPE.to_owned()])
        .map(|path| (path.clone(), read(&path)))
        .collect();
    assert!(all.len() > Fact::TYPES.len(), "schemas are missing; {ADVICE}");
    all
}

fn read(path: &str) -> Value {
    serde_json::from_str(&kept::text(path)).unwrap_or_else(|error| panic!("{path}: {error}; {ADVICE}"))
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).unwrap_or_else(|error| panic!("{error}"))
}

/// Where a schema lists an object's fields and takes no others.
fn closed_objects(schema: &Value, at: &str, found: &mut Vec<String>) {
    let closing = ["additionalProperties", "unevaluatedProperties"];
    if schema.get("properties").is_some() && closing.iter().any(|word| schema.get(word).is_some()) {
        found.push(at.to_owned());
    }
    let inner: Vec<(String, &Value)> = match schema {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().map(|item| ("item".to_owned(), item)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    };
    for (key, value) in inner {
        closed_objects(value, &format!("{at}/{key}"), found);
    }
}

/// The JSON pointers of all fields of all objects, the deepest last.
fn fields_below(value: &Value, at: &str) -> Vec<String> {
    let inner = |(key, value): (String, &Value)| {
        let pointer = format!("{at}/{key}");
        let mut found = vec![pointer.clone()];
        found.extend(fields_below(value, &pointer));
        found
    };
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| inner((key.clone(), value)))
            .collect(),
        // Items of lists may always be fewer; what they are made of counts.
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, item)| fields_below(item, &format!("{at}/{index}")))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    }
}

fn remove(value: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
    let parent = value.pointer_mut(parent).expect("the pointer was found here");
    parent
        .as_object_mut()
        .expect("only fields of objects are removed")
        .remove(key);
}
