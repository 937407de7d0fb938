//! What to do with a raw disk to make an AMI of it: commands to copy. bootpress itself sends nothing to anyone.

use bootpress::architecture::Architecture;
use bootpress::disk::Role;
use bootpress::output::FileReport;
use bootpress::report::Report;

/// The steps, with the AWS command line.
pub(super) fn instructions(report: &Report, file: &FileReport) -> String {
    let path = file.path.display();
    let key = file.path.file_name().unwrap_or_default().to_string_lossy();
    let name = key.trim_end_matches(".raw").trim_end_matches(".ami");
    let has = |role| report.partitions.iter().any(|partition| partition.role == role);
    let (architecture, boot_mode) = match report.architecture {
        Architecture::X86_64 if has(Role::BiosBoot) => ("x86_64", "uefi-preferred"),
        Architecture::X86_64 => ("x86_64", "uefi"),
        Architecture::Aarch64 => ("arm64", "uefi"),
    };
    let unpack = match file.compression {
        Some(packing) => format!("  (unpack it first: EC2 reads no .{})\n", packing.extension()),
        None => String::new(),
    };
    format!(
        "To make an AMI of it, with a bucket of yours:\n{unpack}  \
         aws s3 cp '{path}' 's3://BUCKET/{key}'\n  \
         aws ec2 import-snapshot --disk-container 'Format=RAW,UserBucket={{S3Bucket=BUCKET,S3Key={key}}}'\n  \
         aws ec2 describe-import-snapshot-tasks      until it is completed and says SnapshotId\n  \
         aws ec2 register-image --name '{name}' --architecture {architecture} --boot-mode {boot_mode} \\\n    \
         --virtualization-type hvm --ena-support --root-device-name /dev/xvda \\\n    \
         --block-device-mappings 'DeviceName=/dev/xvda,Ebs={{SnapshotId=SNAPSHOT,VolumeType=gp3}}'\n"
    )
}
