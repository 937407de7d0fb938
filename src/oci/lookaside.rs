//! Signatures of images in registries, kept somewhere else: a directory or a web server, as `registries.d` says.
//!
//! ```text
//! <base>/<path of the repository, without its host>@sha256=<hex>/signature-1, -2 …      the first that is missing ends them
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::attachments::MAXIMUM;
use super::digest::Digest;
use super::directory::numbered_signatures;
use super::registry::redirects;
use crate::error::unsupported;
use crate::signature::{Claim, Signature};

/// How long a server may take, all in all, for one signature.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest signature; real ones have a kilobyte.
const MAXIMUM_SIZE: usize = 4 << 20;

/// What is kept at `base` about a manifest of the image called `name`, a full name.
pub(super) fn claims(base: &str, name: &str, about: &Digest) -> Result<Vec<Claim>> {
    let (_, path) = name.split_once('/').context("a name has a registry")?;
    let path = path.split('@').next().unwrap_or(path);
    let path = path.split(':').next().unwrap_or(path);
    let place = format!("{}/{path}@sha256={}", base.trim_end_matches('/'), about.hex());
    match place.strip_prefix("file://") {
        Some(directory) => numbered_signatures(Path::new(directory), "", about),
        None => fetched(&place, about).with_context(|| format!("asking {base} for signatures")),
    }
}

fn fetched(place: &str, about: &Digest) -> Result<Vec<Claim>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .redirect(redirects(true))
        .user_agent(concat!("bootpress/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let mut claims = Vec::new();
    for number in 1..=MAXIMUM {
        let url = format!("{place}/signature-{number}");
        let Some(bytes) = runtime.block_on(get(&client, &url))? else { break };
        let signature = Signature::from_file(bytes);
        claims.push(Claim { about: about.to_string(), place: url, signature });
    }
    Ok(claims)
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Option<Vec<u8>>> {
    let mut answer = client.get(url).send().await?;
    if matches!(answer.status().as_u16(), 404 | 410) {
        return Ok(None);
    }
    ensure!(answer.status().is_success(), "{url}: {}", answer.status());
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAXIMUM_SIZE {
            return Err(unsupported(format!("{url} is larger than any real signature"), None));
        }
    }
    Ok(Some(bytes))
}
