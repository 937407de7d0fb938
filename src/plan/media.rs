//! What is decided about media: what they are called, what Anaconda is told.

use anyhow::Result;

use super::Plan;
use super::system::name_of;
use crate::bootc::Settings;
use crate::command_line;
use crate::config::{self, MediumInImage};
use crate::filesystem_kind::FileSystem;
use crate::identity::Identity;
use crate::image::Image;
use crate::iso::{self, Payload};
use crate::progress::Warning;
use crate::request::{AnacondaRequest, Request, default_volume_id};

/// Seconds that the menu of a medium with Anaconda waits, as bootc-image-builder's.
const MENU_TIMEOUT: u32 = 60;

/// The options of media; `None`: none is asked for. `own`: what the image says about them.
pub fn media(
    request: &Request,
    plan: &Plan,
    image: &Image,
    settings: &Settings,
    own: MediumInImage,
    payload: Option<Payload>,
) -> Result<Option<(iso::Wishes, Vec<Warning>)>> {
    let Some(medium) = &request.output.medium else { return Ok(None) };
    let mut warnings = Vec::new();
    let mut changeable = medium.settings.clone();
    changeable.kernel_arguments.splice(..0, own.kernel_arguments);
    let anaconda = medium.anaconda.as_ref().zip(payload).map(|(wanted, payload)| {
        anaconda(request, plan, settings, wanted, payload, &changeable, &mut warnings)
    });
    let wishes = iso::Wishes {
        kinds: medium.kinds.clone(),
        url: medium.url.clone(),
        architecture: image.architecture,
        // A stick and the disk that was installed from it may be in the same machine.
        identity: Identity::derive(&image.manifest_digest, &format!("{} medium", request.seed)),
        volume_id: medium
            .volume_id
            .clone()
            .or(own.label)
            .unwrap_or_else(|| default_volume_id(&request.image.reference, image)),
        publisher: medium.publisher.clone(),
        application: medium.application.clone(),
        settings: changeable,
        anaconda: anaconda.transpose()?,
    };
    Ok(Some((wishes, warnings)))
}

fn anaconda(
    request: &Request,
    plan: &Plan,
    settings: &Settings,
    wanted: &AnacondaRequest,
    payload: Payload,
    changeable: &iso::Settings,
    warnings: &mut Vec<Warning>,
) -> Result<iso::Anaconda> {
    let named = wanted.payload.as_ref().unwrap_or(&request.image.reference);
    let target = request.system.target_image.clone().unwrap_or_else(|| {
        name_of(&payload.image, &named.to_string(), &named.file_stem(), warnings)
    });
    let configured = settings.install.root_filesystem;
    let filesystem = wanted.filesystem.or(configured).unwrap_or(FileSystem::Ext4);
    let added = &request.system.kernel_arguments;
    let config::Kickstart { main, base } = config::kickstart(
        &wanted.blueprint,
        &config::Installation {
            transport: request.system.target_transport.name(),
            target: &target,
            filesystem,
            arguments: added,
            disk: changeable.install_to.as_ref().map(iso::Selector::text),
            seed: &plan.identity.disk.to_string(),
        },
    )?;
    let installer = &wanted.blueprint.installer;
    let mut arguments: Vec<String> = Vec::new();
    for line in config::kernel_arguments(&wanted.blueprint, None).iter().chain(added) {
        arguments.extend(command_line::split(line).map(str::to_owned));
    }
    Ok(iso::Anaconda {
        payload: payload.layout,
        kickstart: main,
        kickstart_base: base,
        enabled_modules: installer.enabled_modules.clone(),
        disabled_modules: installer.disabled_modules.clone(),
        arguments,
        menu_timeout: installer.menu_timeout.unwrap_or(MENU_TIMEOUT),
        product: settings.product.clone(),
    })
}
