//! Flags about documents that are written beside the files of a build.

use bootpress::request::DocumentsRequest;
use bootpress::sbom::Form;
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
}

fn form(name: &str) -> Result<Form, String> {
    Form::parse(name)
        .ok_or_else(|| format!("expected one of: {}", Form::ALL.map(Form::name).join(", ")))
}

impl DocumentFlags {
    /// What they ask for.
    pub(crate) fn request(&self) -> DocumentsRequest {
        let wanted = Form::ALL.into_iter().filter(|form| self.sboms.contains(form));
        DocumentsRequest { sboms: wanted.collect() }
    }
}
