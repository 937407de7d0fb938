//! Builds a disk from a bootc image, as `bootpress build IMAGE --format raw` does, and prints what is on it.
//!
//! ```text
//! cargo run --example disk -- oci:image out/
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result};
use bootpress::architecture::Architecture;
use bootpress::output::Format;
use bootpress::pipeline;
use bootpress::progress::{Event, Progress};
use bootpress::report::human;
use bootpress::request::Request;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().context("usage: disk IMAGE DIRECTORY")?;
    let directory = PathBuf::from(arguments.next().context("usage: disk IMAGE DIRECTORY")?);

    // A request starts with the defaults of `bootc install`; set what should differ.
    let architecture = Architecture::host().context("no disks are built for this machine")?;
    let mut request = Request::new(image.parse()?, architecture, &directory);
    request.output.formats = vec![Format::Raw.into()];
    request.system.kernel_arguments = vec!["quiet".to_owned()];

    // The engine announces what it does; drawing is left to the caller.
    let progress = Progress::to(|event| {
        if let Event::Warning { message, .. } = event {
            eprintln!("warning: {message}");
        }
    });
    let report = pipeline::build(&request, &progress)?;

    println!("{} ({})", report.image.reference, report.image.digest);
    for partition in &report.partitions {
        println!("{:>10}  {}", human(partition.size), partition.name);
    }
    for file in &report.files {
        println!("{}  {}", file.sha256, file.path.display());
    }
    Ok(())
}
