//! Flags of `build` about application images that the image is bound to.

use bootpress::request::{ApplicationSource, BoundImages};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct BoundFlags {
    /// Choose what happens to bound application images
    #[arg(long, value_enum, default_value_t = BoundImagesFlag::Skip, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) bound_images: BoundImagesFlag,

    /// Say where a bound image is; repeat for several
    ///
    /// NAME is the name by which the system is bound to it, and IMAGE is spelled as the image to build from.
    #[arg(long = "bound-image", value_name = "NAME=IMAGE", value_parser = source, help_heading = "Installed system", hide_short_help = true)]
    pub(crate) bound_image: Vec<ApplicationSource>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BoundImagesFlag {
    /// the machine pulls them when it first uses them
    Skip,
    /// they are put on the disk; --bound-image has to name all of them
    Stored,
    /// they are put on the disk; those that --bound-image does not name are pulled
    Pull,
}

impl From<BoundImagesFlag> for BoundImages {
    fn from(flag: BoundImagesFlag) -> Self {
        match flag {
            BoundImagesFlag::Skip => Self::Skip,
            BoundImagesFlag::Stored => Self::Stored,
            BoundImagesFlag::Pull => Self::Pull,
        }
    }
}

fn source(text: &str) -> Result<ApplicationSource, String> {
    let (name, image) =
        text.split_once('=').ok_or("expected NAME=IMAGE, such as quay.io/x/app:1=oci:DIR")?;
    let reference = image.parse().map_err(|error: anyhow::Error| format!("{error:#}"))?;
    Ok(ApplicationSource { name: name.to_owned(), reference })
}
