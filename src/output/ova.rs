//! OVA: an appliance as VMware, VirtualBox and others import it (DMTF DSP0243): a tar archive of a description, a manifest with
//! hashes, and the disk as a stream-optimized vmdk.
//!
//! ```text
//! | header | NAME.ovf | header | NAME.mf | header | NAME.vmdk … | end |
//! ```
//!
//! The description comes first, as the standard wants it, but says how large the disk is: it is written last.

use anyhow::Result;

use super::sink::{FileSink, Part, Sink};
use super::stretches::Disk;
use super::{archive, vmdk};
use crate::architecture::Architecture;
use crate::sha256::{Sha256, hex};

/// What an importer reserves unless its user says otherwise.
const CPUS: u32 = 2;
const MEMORY_MIB: u32 = 4096;

/// Digits that are reserved for the size of the vmdk, so that the description's length does not depend on it.
const DIGITS: usize = 20;

/// The appliance.
pub(super) struct Layout {
    name: String,
    architecture: Architecture,
    vmdk: vmdk::Layout,
    size: u64,
}

impl Layout {
    pub(super) fn of(
        disk: Disk<'_>,
        uuid: uuid::Uuid,
        name: String,
        architecture: Architecture,
    ) -> Result<Self> {
        let vmdk = vmdk::Layout::of(disk, uuid, format!("{name}.vmdk"))?;
        Ok(Self { name, architecture, vmdk, size: disk.size() })
    }

    /// Bytes of the disk that have to be compressed.
    pub(super) fn work(&self) -> u64 {
        self.vmdk.work()
    }

    pub(super) fn write(
        &self,
        disk: Disk<'_>,
        threads: usize,
        sink: &mut FileSink<'_>,
    ) -> Result<()> {
        sink.zeros(self.front(0, "").len() as u64)?;
        let mut part = Part::new(sink);
        self.vmdk.write(disk, threads, &mut part)?;
        let (size, sha256) = (part.position(), part.finish());
        sink.zeros_until(sink.position().next_multiple_of(archive::BLOCK))?;
        archive::end(sink)?;
        sink.place(0, &self.front(size, &sha256))
    }

    /// Everything before the vmdk's bytes: as long for any size and hash.
    fn front(&self, size: u64, sha256: &str) -> Vec<u8> {
        let name = &self.name;
        let description = self.description(size);
        let manifest = format!(
            "SHA256({name}.ovf)= {}\nSHA256({name}.vmdk)= {sha256:0>64}\n",
            hex(&Sha256::of(&description))
        );
        let mut front = Vec::new();
        for (file, text) in [("ovf", &description), ("mf", &manifest)] {
            front.extend(archive::plain_header(&format!("{name}.{file}"), text.len() as u64));
            front.extend(text.as_bytes());
            front.resize(front.len().next_multiple_of(archive::BLOCK as usize), 0);
        }
        front.extend(archive::plain_header(&format!("{name}.vmdk"), size));
        front
    }

    /// The OVF envelope. Disk and network are devices that every hypervisor emulates and every Linux drives.
    fn description(&self, size: u64) -> String {
        let (name, capacity, cpus, memory) = (&self.name, self.size, CPUS, MEMORY_MIB);
        let size = format!("ovf:size=\"{size}\"");
        let room = DIGITS + "ovf:size=\"\"".len();
        // CIM's numbers of operating systems: 101 is Linux with 64 bits (CIM_OperatingSystem.OSType).
        let (system, hardware) = match self.architecture {
            Architecture::X86_64 => ("other3xLinux64Guest", "vmx-13"),
            // The first virtual hardware with arm machines that are not a preview.
            Architecture::Aarch64 => ("arm-other5xlinux-64", "vmx-20"),
        };
        let items = [
            amount(1, 3, "processors", "hertz * 10^6", cpus),
            amount(2, 4, "memory", "byte * 2^20", memory),
            item(3, 20, "disk controller", &[("ResourceSubType", "vmware.sata.ahci")]),
            item(
                4,
                17,
                "disk",
                &[("AddressOnParent", "0"), ("HostResource", "ovf:/disk/disk1"), ("Parent", "3")],
            ),
            item(
                5,
                10,
                "network adapter",
                &[
                    ("AutomaticAllocation", "true"),
                    ("Connection", "network"),
                    ("ResourceSubType", "E1000"),
                ],
            ),
        ]
        .concat();
        format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="{name}.vmdk" ovf:id="file1" {size:<room$}/>
  </References>
  <DiskSection>
    <Info>The disk</Info>
    <Disk ovf:capacity="{capacity}" ovf:capacityAllocationUnits="byte" ovf:diskId="disk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>The network</Info>
    <Network ovf:name="network">
      <Description>The network of the machine</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A machine that boots the disk</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="{system}">
      <Info>Linux, 64 bits</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>{hardware}</vssd:VirtualSystemType>
      </System>
{items}      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#
        )
    }
}

fn amount(id: u32, kind: u32, name: &str, unit: &str, amount: u32) -> String {
    let quantity = amount.to_string();
    let fields = [("AllocationUnits", unit), ("VirtualQuantity", &quantity)];
    item(id, kind, &format!("{amount} {name}"), &fields)
}

/// A device. Its fields come in alphabetical order: the schema knows no other.
fn item(id: u32, kind: u32, name: &str, fields: &[(&str, &str)]) -> String {
    let (id, kind) = (id.to_string(), kind.to_string());
    let mut fields = fields.to_vec();
    fields.extend([("ElementName", name), ("InstanceID", &id), ("ResourceType", &kind)]);
    fields.sort_unstable();
    let line =
        |(name, value): &(&str, &str)| format!("        <rasd:{name}>{value}</rasd:{name}>\n");
    let lines: String = fields.iter().map(line).collect();
    format!("      <Item>\n{lines}      </Item>\n")
}
