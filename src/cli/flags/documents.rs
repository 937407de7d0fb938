//! Flags about documents that are written beside the files of a build.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bootpress::request::{DocumentsRequest, ProvenanceRequest};
use bootpress::sbom::Form;
use bootpress::trust::SigningKey;
use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Documents")]
pub(crate) struct DocumentFlags {
    /// Write a bill of materials: spdx, cyclonedx; repeat for both
    ///
    /// It lists the packages of the image's rpm, dpkg, apk or pacman database with package URLs and licences, the boot loader's
    /// files, and the digests of the image and of the files of this build. It stands beside them, as SPDX 2.3 (.spdx.json) or
    /// CycloneDX 1.6 (.cdx.json). One that is attached to the image is kept beside it (.source.spdx.json), and linked.
    #[arg(long = "sbom", value_name = "FORM", value_delimiter = ',', value_parser = form)]
    sboms: Vec<Form>,

    /// Write the provenance, in-toto with the predicate of SLSA
    ///
    /// It names the image's digest, the flags that count, the digests of the files that flags name, and those of the files that
    /// were built (.provenance.json). `bootpress verify` builds again by it. Paths, users and times are not in it.
    #[arg(long)]
    provenance: bool,

    /// Sign the provenance with this private key
    ///
    /// The bundle has a DSSE envelope inside, and cosign verifies it: cosign verify-blob-attestation --bundle. FILE is PEM (PKCS #8) of a P-256 or Ed25519 key without a password, as `openssl genpkey` writes it.
    #[arg(long, value_name = "FILE", requires = "provenance")]
    provenance_key: Option<PathBuf>,
}

fn form(name: &str) -> Result<Form, String> {
    Form::parse(name)
        .ok_or_else(|| format!("expected one of: {}", Form::ALL.map(Form::name).join(", ")))
}

impl DocumentFlags {
    /// What they ask for; `record`: the flags that count and the files that flags name, if a provenance shall state them.
    pub(crate) fn request(
        &self,
        record: impl FnOnce() -> Result<Recorded>,
    ) -> Result<DocumentsRequest> {
        let wanted = Form::ALL.into_iter().filter(|form| self.sboms.contains(form));
        let key = |file: &PathBuf| {
            let reading = || format!("reading {}", file.display());
            let bytes = fs::read(file).with_context(reading)?;
            SigningKey::from_pem(&bytes).map(Arc::new).with_context(reading)
        };
        let provenance = if self.provenance {
            let Recorded { arguments, inputs } = record()?;
            let key = self.provenance_key.as_ref().map(key).transpose()?;
            Some(ProvenanceRequest { arguments, inputs, key })
        } else {
            None
        };
        Ok(DocumentsRequest { sboms: wanted.collect(), provenance })
    }
}

/// What a provenance records of a command line.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) arguments: Vec<String>,
    pub(crate) inputs: Vec<(String, String)>,
}
