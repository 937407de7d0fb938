//! Flags of `build` that say who has to vouch for the image.

use std::path::PathBuf;

use bootpress::trust::Demand;
use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Trust")]
pub(crate) struct TrustFlags {
    /// Accept the image only if this policy.json accepts it
    ///
    /// Without this flag the policy is ~/.config/containers/policy.json, else /etc/containers/policy.json. If neither exists, every image is
    /// accepted.
    #[arg(long, value_name = "FILE")]
    pub(crate) signature_policy: Option<PathBuf>,

    /// Accept the image whatever the policy of this machine says
    #[arg(long, hide_short_help = true, conflicts_with = "signature_policy")]
    pub(crate) insecure_policy: bool,

    /// Accept the image only with a signature by this key
    ///
    /// The key is cosign.pub, or an OpenPGP key for simple signing. No policy is asked. Repeat the flag for keys any of which will do.
    #[arg(long = "verify-key", value_name = "FILE", conflicts_with_all = ["signature_policy", "insecure_policy"])]
    pub(crate) verify_keys: Vec<PathBuf>,

    /// Require the signature to be for this repository
    ///
    /// Use it for an image that was copied from there. Without this flag it is the image's own repository.
    #[arg(long, hide_short_help = true, value_name = "NAME", requires = "verify_keys")]
    pub(crate) verify_identity: Option<String>,
}

impl TrustFlags {
    /// What they ask for.
    pub(crate) fn demand(&self) -> Demand {
        if !self.verify_keys.is_empty() {
            let name = self.verify_identity.clone();
            return Demand::Keys { files: self.verify_keys.clone(), name };
        }
        match &self.signature_policy {
            _ if self.insecure_policy => Demand::Nothing,
            Some(file) => Demand::Policy(file.clone()),
            None => Demand::Found,
        }
    }
}
