//! The document and the routes hold each other.

use serde_json::{Value, json};

use super::super::openapi::{SCHEMAS, document};
use super::super::route::{ROUTES, Route, Shape};
use super::client::Reply;
use super::rig::Rig;

fn route(method: &str, path: &str) -> Option<&'static Route> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |route: &&Route| {
        let (parts, given): (Vec<_>, Vec<_>) = (route.path.split('/').collect(), path.split('/').collect());
        let same = |(part, given): (&&str, &&str)| part == given || part.starts_with('{') && !given.is_empty();
        route.method.name() == method && parts.len() == given.len() && parts.iter().zip(&given).all(same)
    };
    // A name is never in a place where a word stands in another route.
    ROUTES.iter().find(fits)
}

/// Why a value does not fit a schema.
fn misfit(value: &Value, schema: &Value, all: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return misfit(value, all.pointer(name.trim_start_matches('#')).unwrap(), all);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().filter(|choice| misfit(value, choice, all).is_none()).count();
        return (fits != 1).then(|| format!("{value} fits {fits} of the choices"));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{value} is none of {words:?}"));
    }
    let kind = schema["type"].as_str().unwrap();
    let right = match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !right {
        return Some(format!("{value} is no {kind}"));
    }
    if let Some(items) = value.as_array() {
        return items.iter().find_map(|item| misfit(item, &schema["items"], all));
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else { return None };
    let required = schema["required"].as_array().into_iter().flatten();
    if let Some(missing) = required.map(|name| name.as_str().unwrap()).find(|name| !fields.contains_key(*name)) {
        return Some(format!("{missing} is missing in {value}"));
    }
    fields.iter().find_map(|(name, field)| match properties.get(name) {
        Some(property) => misfit(field, property, all).map(|why| format!("{name}: {why}")),
        None => (schema["additionalProperties"] == false).then(|| format!("{name} is not in the document: {value}")),
    })
}

/// Every answer that a test gets is held against the document.
pub(super) fn check(method: &str, path: &str, reply: &Reply) {
    let all = document();
    let error = json!({ "$ref": "#/components/schemas/Error" });
    if reply.status >= 400 {
        assert_eq!(misfit(&reply.json(), &error, &all), None, "{method} {path}");
        return;
    }
    let route = route(method, path).unwrap_or_else(|| panic!("{method} {path} is no route"));
    assert_eq!(reply.status, route.status, "{method} {path}");
    let pointer = format!("/paths/{}/{}", route.path.replace('/', "~1"), method.to_ascii_lowercase());
    let operation = all.pointer(&pointer).unwrap_or_else(|| panic!("{pointer} is not in the document"));
    let content = &operation["responses"][route.status.to_string()]["content"];
    let schema = &content["application/json"]["schema"];
    match route.answer {
        Shape::One(_) | Shape::Many(_) | Shape::Any => {
            assert_eq!(misfit(&reply.json(), schema, &all), None, "{method} {path}");
        }
        Shape::Lines(_) => {
            let schema = &content["application/x-ndjson"]["schema"];
            for line in reply.text.lines() {
                assert_eq!(misfit(&serde_json::from_str(line).unwrap(), schema, &all), None, "{method} {path}");
            }
        }
        Shape::Stream(_) | Shape::Text | Shape::Record => {}
    }
}

#[test]
fn the_document_has_every_route_and_nothing_else_and_every_name_in_it_leads_somewhere() {
    let rig = Rig::new();
    let served = rig.call_with("GET", "/v1/openapi.json", None, &[], None).json();
    assert_eq!(served, document());
    let mut found: Vec<_> = served["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(move |method| (path.clone(), method.to_ascii_uppercase()))
        })
        .collect();
    let mut routes: Vec<_> = ROUTES.iter().map(|r| (r.path.to_owned(), r.method.name().to_owned())).collect();
    found.sort();
    routes.sort();
    assert_eq!(found, routes);
    routes.dedup();
    assert_eq!(routes.len(), ROUTES.len(), "no route is there twice");
    let text = served.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(!served["components"]["schemas"][name].is_null(), "{name} is nowhere");
    }
    for (name, _) in SCHEMAS {
        assert!(
            text.contains(&format!("schemas/{name}\"")) || matches!(*name, "Event" | "Cycle"),
            "{name} is not used"
        );
    }
}

#[test]
fn a_value_that_does_not_fit_is_noticed() {
    let all = document();
    let schema = json!({ "$ref": "#/components/schemas/Lease" });
    let mut lease = json!({
        "repository": "r", "name": "n", "term": 1, "actsUntil": "t", "confirmed": "t", "holder": "h", "ours": true, "actingAs": "h",
    });
    assert_eq!(misfit(&lease, &schema, &all), None);
    lease["more"] = json!(1);
    assert!(misfit(&lease, &schema, &all).unwrap().contains("more is not in the document"));
    lease.as_object_mut().unwrap().remove("more");
    lease.as_object_mut().unwrap().remove("term");
    assert!(misfit(&lease, &schema, &all).unwrap().contains("term is missing"));
    let kind = json!({ "$ref": "#/components/schemas/Health" });
    assert!(misfit(&json!({ "status": "tired" }), &kind, &all).is_some());
}
