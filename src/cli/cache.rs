//! `bootpress cache`: what was fetched and kept.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bootpress::oci::{Cache, CachedImage, Places, UnpackedLayers};
use bootpress::report::human;
use clap::{Args, Subcommand};
use serde_json::json;

use bootpress::disk::parse_size;

use super::say::{self, Page};

#[derive(Debug, Args)]
pub(crate) struct CacheFlags {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// List the images in the cache
    List {
        /// Print the list as JSON
        #[arg(long, conflicts_with = "names")]
        json: bool,

        /// Print only the names of the images, as completions need them
        #[arg(long)]
        names: bool,
    },
    /// Remove what no image needs
    ///
    /// With --max-size, unpacked layers and then images are removed too, those first that were not used for the longest time.
    Prune {
        /// Set how much may be left, such as 20G
        ///
        /// Units are binary. 0 empties the cache.
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        max_size: Option<u64>,

        /// Print what was removed as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Lists or removes.
pub(super) fn run(flags: &CacheFlags) -> Result<()> {
    let directory = Places::of_this_process().image_cache();
    let directory =
        directory.context("there is no cache: neither HOME nor XDG_CACHE_HOME is set")?;
    let cache = Cache::open(&directory)?;
    let (text, json, as_json) = match flags.command {
        CacheCommand::List { names: true, .. } => {
            let images = cache.list()?;
            let mut page = Page::default();
            images.iter().for_each(|image| page.line(format_args!("{}", image.name)));
            return say::print(&page.into_text(), "printing the names");
        }
        CacheCommand::List { json, .. } => {
            let (images, size, unpacked) = (cache.list()?, cache.size()?, cache.unpacked()?);
            let told = json!({
                "cache": cache.directory(), "size": size, "images": images, "unpacked_layers": unpacked
            });
            (list(&images, size, unpacked, &cache), told, json)
        }
        CacheCommand::Prune { max_size, json } => {
            let waiting = || super::say::say!("waiting for builds that use the cache");
            let pruned = cache.prune(max_size, waiting)?;
            let mut page = Page::default();
            for image in &pruned.images {
                page.line(format_args!("removed {image}"));
            }
            let (bytes, left) = (human(pruned.bytes), human(pruned.left));
            page.line(format_args!("{bytes} in {} files removed, {left} left", pruned.files));
            (page.into_text(), serde_json::to_value(&pruned).context("printing the result")?, json)
        }
    };
    let context = "printing the result";
    if as_json { say::print_json(&json, context) } else { say::print(&text, context) }
}

fn list(images: &[CachedImage], size: u64, unpacked: UnpackedLayers, cache: &Cache) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let width = images.iter().map(|image| image.name.len()).max().unwrap_or(0).max(5);
    let mut page = Page::default();
    if !images.is_empty() {
        page.line(format_args!(
            "{:<width$}  {:<19}  {:>10}  {:<10}  platforms",
            "image", "digest", "size", "used"
        ));
    }
    for image in images {
        let platforms = if image.platforms.is_empty() {
            "incomplete".to_owned()
        } else {
            image.platforms.join(", ")
        };
        page.line(format_args!(
            "{:<width$}  {:<19}  {:>10}  {:<10}  {platforms}",
            image.name,
            image.digest.get(..19).unwrap_or(&image.digest),
            human(image.size),
            ago(now.saturating_sub(image.used))
        ));
    }
    if unpacked.count > 0 {
        let UnpackedLayers { count, size } = unpacked;
        page.line(format_args!("unpacked layers for later builds: {count}, {}", human(size)));
    }
    page.line(format_args!("{} in {}", human(size), cache.directory().display()));
    page.into_text()
}

/// A time that has passed, roughly.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => "just now".to_owned(),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rough() {
        assert_eq!(
            [5, 300, 90_000, 400_000].map(ago),
            ["just now", "5 min ago", "25 h ago", "4 d ago"]
        );
    }
}
