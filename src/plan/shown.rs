//! A plan for people: what `--dry-run` prints of it.

use serde::Serialize;

use super::Plan;
use crate::ostree::SignaturePolicy;

/// A choice, and what was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What was to be decided, in one or two words.
    pub about: &'static str,
    /// What was decided.
    pub chosen: String,
}

impl Plan {
    /// The choices that a picture of the disk does not show, in a fixed order.
    pub fn decisions(&self) -> Vec<Decision> {
        let system = &self.system;
        let mut decisions = Vec::new();
        let mut decide = |about, chosen: String| decisions.push(Decision { about, chosen });
        decide("backend", format!("{}, {}", self.backend.backend, self.backend.because));
        if let Some(origin) = self.arrangement.origin() {
            decide("partitions", format!("as {origin} says"));
        }
        decide("sector size", format!("{} bytes", self.sector_size.bytes()));
        decide("stateroot", system.stateroot.to_string());
        decide("updates from", system.target.clone());
        let vouches = match &system.signature_policy {
            SignaturePolicy::Unverified => "nobody".to_owned(),
            SignaturePolicy::ContainerPolicy => "the machine's container policy".to_owned(),
            SignaturePolicy::Remote(remote) => format!("the ostree remote {remote}"),
        };
        decide("updates vouched for by", vouches);
        let none = || "nothing".to_owned();
        decide("root=", system.mounts.root.clone().unwrap_or_else(none));
        decide("mounted on /boot", system.mounts.boot.clone().unwrap_or_else(none));
        for mount in &system.mounting.mounts {
            let place = mount.mountpoint.as_deref().unwrap_or("as swap");
            decide("mounted", format!("{} {place} ({})", mount.uuid, mount.kind));
        }
        decide("fs-verity", (if system.fs_verity { "on" } else { "off" }).to_owned());
        let grows = system.mounting.grow.is_some();
        decide("root grows", (if grows { "at the first boot" } else { "no" }).to_owned());
        decisions
    }
}
