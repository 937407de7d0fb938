//! Flags of `build` that say who has to vouch for the image.

use std::path::PathBuf;

use bootpress::trust::Demand;
use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Trust")]
pub(crate) struct TrustFlags {
    /// Decides whether the image is accepted: a policy.json [default: ~/.config/containers/policy.json, else
    /// /etc/containers/policy.json, else every image is]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature_policy: Option<PathBuf>,

    /// Accepts the image whatever the policy of this machine says
    #[arg(long, conflicts_with = "signature_policy")]
    pub(crate) insecure_policy: bool,

    /// Accepts the image only with a signature by this key, instead of asking a policy: cosign.pub, or an OpenPGP key for
    /// simple signing; repeat it for keys any of which will do
    #[arg(long = "verify-key", value_name = "FILE", conflicts_with_all = ["signature_policy", "insecure_policy"])]
    pub(crate) verify_keys: Vec<PathBuf>,

    /// The repository that the signature has to be for, if the image is copied from there [default: the image's own]
    #[arg(long, value_name = "NAME", requires = "verify_keys")]
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
