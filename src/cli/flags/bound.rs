//! Flags of `build` about application images that the image is bound to.

use bootpress::request::{ApplicationSource, BoundImages};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct BoundFlags {
    /// Application images that the image is bound to: `skip` leaves them to the machine, which pulls them when it first uses
    /// them; `stored` puts those on the disk that --bound-image gives, and wants all; `pull` pulls the others
    #[arg(long, value_enum, default_value_t = BoundImagesFlag::Skip, help_heading = "Installed system")]
    pub(crate) bound_images: BoundImagesFlag,

    /// Where a bound image is, for `stored` and `pull`: its NAME as it is bound, and an IMAGE; repeat it for several
    #[arg(long = "bound-image", value_name = "NAME=IMAGE", value_parser = source, help_heading = "Installed system")]
    pub(crate) bound_image: Vec<ApplicationSource>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BoundImagesFlag {
    Skip,
    Stored,
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
        text.split_once('=').ok_or("NAME=IMAGE is wanted, such as quay.io/x/app:1=oci:DIR")?;
    let reference = image.parse().map_err(|error: anyhow::Error| format!("{error:#}"))?;
    Ok(ApplicationSource { name: name.to_owned(), reference })
}
