//! Which file systems are local, so that `flock` and atomic renames are the whole truth (R6). All else counts as a network mount.

use std::os::fd::AsFd;

/// Kinds of file system as Linux's statfs names them. Those that share a number with others are in [`is_local`].
#[cfg(target_os = "linux")]
const LOCAL: &[u32] = &[
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x2FC1_2FC1, // zfs
    0xF2F5_2010, // f2fs
    0x4253_584E, // apfs
    0x482B,      // hfs+
    0x4244,      // hfs
    0x5346_544E, // ntfs
    0x7366_746E, // ntfs3
    0x2011_BAB0, // exfat
    0x4D44,      // vfat
    0x0102_1994, // tmpfs
    0x794C_7630, // overlay
];

/// sshfs and rclone mounts have the same number as NTFS by `ntfs-3g`; only the mount table tells them apart.
#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

/// Whether an open directory lies on a local disk. Not known is not local.
#[cfg(target_os = "linux")]
pub(crate) fn is_local(directory: impl AsFd, device: u64) -> bool {
    let Ok(found) = rustix::fs::fstatfs(&directory) else { return false };
    // The numbers have 32 bits; some are negative where the field is a signed word.
    let kind = (found.f_type as u64 & 0xFFFF_FFFF) as u32;
    if kind == FUSE {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        return mounted_as(&table, device).is_some_and(|name| name == "fuseblk");
    }
    LOCAL.contains(&kind)
}

/// Elsewhere nothing is known, so nothing counts as local.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_local(_directory: impl AsFd, _device: u64) -> bool {
    false
}

/// The type of the file system with this device number, from the text of `/proc/self/mountinfo`.
#[cfg(target_os = "linux")]
fn mounted_as(table: &str, device: u64) -> Option<&str> {
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(wanted.as_str()))?;
    line.split_once(" - ")?.1.split(' ').next()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn fuse_is_told_apart_by_the_mount_table() {
        let table = "36 35 98:0 /m1 /mnt1 rw,noatime master:1 - ext3 /dev/root rw\n\
                     40 35 0:51 / /mnt/r rw,nosuid shared:7 - fuse.sshfs host:/x rw,user_id=0\n\
                     41 35 8:17 / /mnt/usb rw - fuseblk /dev/sdb1 rw\n";
        assert_eq!(mounted_as(table, rustix::fs::makedev(8, 17)), Some("fuseblk"));
        assert_eq!(mounted_as(table, rustix::fs::makedev(0, 51)), Some("fuse.sshfs"));
        assert_eq!(mounted_as(table, rustix::fs::makedev(0, 52)), None);
    }

    #[test]
    fn proc_is_no_disk() {
        assert!(!is_local(std::fs::File::open("/proc").unwrap(), 0));
    }
}
