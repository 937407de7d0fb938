//! CycloneDX 1.6 as JSON (ECMA-424).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::licence::Licence;
use super::{Bill, Form, purl, web_url};
use crate::packages::Package;

const IMAGE: &str = "source-image";
const DISK: &str = "artifact-1";

pub(super) fn document(bill: &Bill) -> Value {
    let uuid = bill.uuid(Form::CycloneDx);
    let (tool, version) = bill.tool;
    let image = image(bill);
    let mut components = Vec::new();
    let mut main = image.clone();
    for (number, artifact) in (1..).zip(&bill.artifacts) {
        let component = json!({
            "type": if artifact.installs { "file" } else { "operating-system" },
            "bom-ref": format!("artifact-{number}"),
            "name": artifact.name,
            "version": bill.image.version.as_deref().unwrap_or(&bill.system.version),
            "hashes": [{ "alg": "SHA-256", "content": artifact.sha256 }],
            "pedigree": { "ancestors": [ancestor(&image, number)] },
            "properties": [{ "name": "bootpress:format", "value": artifact.format }],
        });
        if number == 1 {
            main = component;
        } else {
            components.push(component);
        }
    }
    if !bill.artifacts.is_empty() {
        components.push(image);
    }
    let (mut taken, mut contained) = (BTreeSet::new(), Vec::new());
    for package in &bill.inventory.packages {
        let purl = purl(package, &bill.system);
        let mut reference = purl.clone();
        let mut number = 1;
        while !taken.insert(reference.clone()) {
            number += 1;
            reference = format!("{purl}#{number}");
        }
        components.push(library(package, &purl, &reference));
        contained.push(reference);
    }
    for (number, file) in (1..).zip(&bill.boot_files) {
        let reference = format!("file-{number}");
        components.push(json!({
            "type": "file",
            "bom-ref": reference,
            "name": file.path,
            "hashes": [
                { "alg": "SHA-1", "content": file.sha1 },
                { "alg": "SHA-256", "content": file.sha256 },
            ],
        }));
        contained.push(reference);
    }
    let holder = if bill.artifacts.is_empty() { IMAGE } else { DISK };
    let variants: Vec<String> =
        (2..=bill.artifacts.len()).map(|n| format!("artifact-{n}")).collect();
    let mut dependencies = vec![json!({ "ref": holder, "dependsOn": contained })];
    dependencies.extend(variants.iter().map(|one| json!({ "ref": one, "dependsOn": [holder] })));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{uuid}"),
        "version": 1,
        "metadata": {
            "timestamp": bill.created,
            "tools": { "components": [{ "type": "application", "name": tool, "version": version }] },
            "component": main,
        },
        "components": components,
        "dependencies": dependencies,
    })
}

/// The image inside of a pedigree: a reference of its own, since each may be in a document once.
fn ancestor(image: &Value, number: usize) -> Value {
    let mut ancestor = image.clone();
    ancestor["bom-ref"] = json!(format!("{IMAGE}-of-artifact-{number}"));
    ancestor
}

fn image(bill: &Bill) -> Value {
    let digest = bill.image.digest.trim_start_matches("sha256:");
    let mut image = json!({
        "type": "container",
        "bom-ref": IMAGE,
        "name": bill.image.name,
        "version": bill.image.digest,
        "hashes": [{ "alg": "SHA-256", "content": digest }],
        "purl": super::purl::of_image(&bill.image),
    });
    let carried: Vec<Value> = bill
        .carried
        .iter()
        .map(|carried| {
            let own = carried.identity.as_deref().filter(|_| carried.form == "cyclonedx");
            json!({
                "type": "bom",
                "url": own.unwrap_or(&carried.file),
                "comment": format!("{}, came with the image, kept as {}", carried.form, carried.file),
                "hashes": [{ "alg": "SHA-256", "content": carried.sha256 }],
            })
        })
        .collect();
    if !carried.is_empty() {
        image["externalReferences"] = Value::Array(carried);
    }
    image
}

fn library(package: &Package, purl: &str, reference: &str) -> Value {
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    put("type", json!("library"));
    put("bom-ref", json!(reference));
    if let Some(supplier) = &package.supplier {
        put("supplier", json!({ "name": supplier }));
    }
    put("name", json!(package.name));
    put("version", json!(package.version));
    if let Some(summary) = &package.summary {
        put("description", json!(summary));
    }
    match Licence::of(package.licence.as_deref()) {
        Licence::Unknown => {}
        Licence::Expression(expression) => {
            put("licenses", json!([{ "expression": expression }]));
        }
        Licence::Other(name) => {
            put("licenses", json!([{ "license": { "name": name } }]));
        }
    }
    put("purl", json!(purl));
    if let Some(url) = package.url.as_deref().and_then(web_url) {
        put("externalReferences", json!([{ "type": "website", "url": url }]));
    }
    if let Some(source) = &package.source {
        put("properties", json!([{ "name": "bootpress:source", "value": source }]));
    }
    Value::Object(entry)
}
