//! `bootpress cache`: what was fetched and kept.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bootpress::oci::{Cache, CachedImage, Places};
use bootpress::report::human;
use clap::{Args, Subcommand};
use serde_json::json;

use bootpress::disk::parse_size;

#[derive(Debug, Args)]
pub(crate) struct CacheFlags {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Show which images are in the cache
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what no image needs; with --max-size also the images that were not used for the longest time
    Prune {
        /// How much may be left, such as 20G (binary units); 0 empties the cache
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
        CacheCommand::List { json } => {
            let (images, size) = (cache.list()?, cache.size()?);
            let told = json!({ "cache": cache.directory(), "size": size, "images": images });
            (list(&images, size, &cache), told, json)
        }
        CacheCommand::Prune { max_size, json } => {
            let waiting = || eprintln!("waiting for builds that use the cache");
            let pruned = cache.prune(max_size, waiting)?;
            let mut text = String::new();
            for image in &pruned.images {
                text.push_str(&format!("removed {image}\n"));
            }
            let (bytes, left) = (human(pruned.bytes), human(pruned.left));
            text.push_str(&format!("{bytes} in {} files removed, {left} left\n", pruned.files));
            (text, serde_json::to_value(&pruned).context("printing the result")?, json)
        }
    };
    let mut out = io::stdout().lock();
    let printed = if as_json { writeln!(out, "{json:#}") } else { out.write_all(text.as_bytes()) };
    printed.context("printing the result")
}

fn list(images: &[CachedImage], size: u64, cache: &Cache) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let width = images.iter().map(|image| image.name.len()).max().unwrap_or(0).max(5);
    let mut text = String::new();
    if !images.is_empty() {
        text = format!(
            "{:<width$}  {:<19}  {:>10}  {:<10}  platforms\n",
            "image", "digest", "size", "used"
        );
    }
    for image in images {
        let platforms = match image.platforms.is_empty() {
            true => "incomplete".to_owned(),
            false => image.platforms.join(", "),
        };
        text.push_str(&format!(
            "{:<width$}  {:<19}  {:>10}  {:<10}  {platforms}\n",
            image.name,
            &image.digest[..image.digest.len().min(19)],
            human(image.size),
            ago(now.saturating_sub(image.used))
        ));
    }
    text + &format!("{} in {}\n", human(size), cache.directory().display())
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
