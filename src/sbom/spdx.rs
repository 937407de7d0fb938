//! SPDX 2.3 as JSON (ISO/IEC 5962 has its version before).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::licence::Licence;
use super::{Bill, Form, purl, web_url};

const NONE: &str = "NOASSERTION";
const DISK: &str = "SPDXRef-Artifact-1";
const IMAGE: &str = "SPDXRef-Image";

/// Licences that are no SPDX expressions: their texts, and how the document refers to them.
#[derive(Default)]
struct Others(BTreeMap<String, String>);

impl Others {
    fn stated(&mut self, licence: Licence) -> String {
        match licence {
            Licence::Unknown => NONE.to_owned(),
            Licence::Expression(expression) => expression,
            Licence::Other(text) => {
                let next = format!("LicenseRef-{}", self.0.len() + 1);
                self.0.entry(text).or_insert(next).clone()
            }
        }
    }
}

pub(super) fn document(bill: &Bill) -> Value {
    let name = bill.name();
    let uuid = bill.uuid(Form::Spdx);
    let mut others = Others::default();
    let mut packages = artifacts(bill);
    packages.push(image(bill));
    let mut relationships = Vec::new();
    let mut relate = |from: &str, how: &str, to: &str| {
        relationships.push(json!({
            "spdxElementId": from, "relationshipType": how, "relatedSpdxElement": to,
        }));
    };
    for number in 1..=bill.artifacts.len() {
        let artifact = format!("SPDXRef-Artifact-{number}");
        relate("SPDXRef-DOCUMENT", "DESCRIBES", &artifact);
        relate(&artifact, "GENERATED_FROM", IMAGE);
        if number > 1 {
            relate(&artifact, "VARIANT_OF", DISK);
        }
    }
    if bill.artifacts.is_empty() {
        relate("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE);
    }
    let holder = if bill.artifacts.is_empty() { IMAGE } else { DISK };
    for (number, package) in (1..).zip(&bill.inventory.packages) {
        let id = format!("SPDXRef-Package-{number}-{}", plain(&package.name));
        let licence = others.stated(Licence::of(package.licence.as_deref()));
        let purl = purl(package, &bill.system);
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| entry.insert(key.to_owned(), value);
        put("SPDXID", json!(id));
        put("name", json!(package.name));
        put("versionInfo", json!(package.version));
        put("downloadLocation", json!(NONE));
        put("filesAnalyzed", json!(false));
        put("licenseConcluded", json!(NONE));
        put("licenseDeclared", json!(licence));
        put("copyrightText", json!(NONE));
        if let Some(supplier) = &package.supplier {
            // A person or an organization: databases do not tell which.
            put("supplier", json!(format!("Organization: {}", supplier.replace(['(', ')'], ""))));
        }
        if let Some(url) = package.url.as_deref().and_then(web_url) {
            put("homepage", json!(url));
        }
        if let Some(source) = &package.source {
            put("sourceInfo", json!(format!("built from {source}")));
        }
        if let Some(summary) = &package.summary {
            put("summary", json!(summary));
        }
        put(
            "externalRefs",
            json!([{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl,
            }]),
        );
        packages.push(Value::Object(entry));
        relate(IMAGE, "CONTAINS", &id);
        if holder != IMAGE {
            relate(holder, "CONTAINS", &id);
        }
    }
    // A package whose files were not all looked at cannot contain files (SPDX 2.3, section 7.8).
    let (mut files, mut installed) = (Vec::new(), Vec::new());
    for (number, file) in (1..).zip(&bill.boot_files) {
        let id = format!("SPDXRef-File-{number}");
        files.push(json!({
            "SPDXID": id,
            "fileName": format!("./{}", file.path),
            "fileTypes": ["BINARY"],
            "checksums": [
                { "algorithm": "SHA1", "checksumValue": file.sha1 },
                { "algorithm": "SHA256", "checksumValue": file.sha256 },
            ],
            "licenseConcluded": NONE,
            "licenseInfoInFiles": [NONE],
            "copyrightText": NONE,
        }));
        installed.push(json!({
            "spdxElementId": holder,
            "relationshipType": "OTHER",
            "relatedSpdxElement": id,
            "comment": "installed on the disk for firmware and boot loader",
        }));
    }
    let mut external = Vec::new();
    for (number, carried) in (1..).zip(&bill.carried) {
        let namespace = carried.identity.as_deref().filter(|_| carried.form == "spdx");
        if let Some(namespace) = namespace.and_then(web_url) {
            external.push(json!({
                "externalDocumentId": format!("DocumentRef-Source-{number}"),
                "spdxDocument": namespace,
                "checksum": { "algorithm": "SHA1", "checksumValue": carried.sha1 },
            }));
            relate(IMAGE, "DESCRIBED_BY", &format!("DocumentRef-Source-{number}:SPDXRef-DOCUMENT"));
        }
    }
    relationships.extend(installed);
    let extracted: Vec<Value> = others
        .0
        .iter()
        .map(|(text, id)| json!({ "licenseId": id, "name": text, "extractedText": text }))
        .collect();
    let (tool, version) = bill.tool;
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{uuid}", plain(name)),
        "creationInfo": { "created": bill.created, "creators": [format!("Tool: {tool}-{version}")] },
        "packages": packages,
        "files": files,
        "relationships": relationships,
    });
    for (key, list) in
        [("externalDocumentRefs", external), ("hasExtractedLicensingInfos", extracted)]
    {
        if !list.is_empty() {
            document[key] = Value::Array(list);
        }
    }
    document
}

fn artifacts(bill: &Bill) -> Vec<Value> {
    let of = |(number, artifact): (usize, &super::Artifact)| {
        let purpose = if artifact.installs { "INSTALL" } else { "OPERATING-SYSTEM" };
        let version = bill.image.version.as_deref().unwrap_or(&bill.system.version);
        json!({
            "SPDXID": format!("SPDXRef-Artifact-{number}"),
            "name": artifact.name,
            "versionInfo": version,
            "packageFileName": artifact.name,
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "primaryPackagePurpose": purpose,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": artifact.sha256 }],
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
            "comment": format!("{} in the format {}", bill.system.title, artifact.format),
        })
    };
    (1..).zip(&bill.artifacts).map(of).collect()
}

fn image(bill: &Bill) -> Value {
    let digest = bill.image.digest.trim_start_matches("sha256:");
    let carried: Vec<String> = bill
        .carried
        .iter()
        .map(|carried| format!("{} ({}, SHA-256 {})", carried.file, carried.form, carried.sha256))
        .collect();
    let mut image = json!({
        "SPDXID": IMAGE,
        "name": bill.image.name,
        "versionInfo": bill.image.digest,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": digest }],
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": super::purl::of_image(&bill.image),
        }],
    });
    if !carried.is_empty() {
        image["comment"] = json!(format!("its own bill of materials: {}", carried.join(", ")));
    }
    image
}

/// Text with the characters of SPDX identifiers only.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}
