//! Names of the kernel's capabilities (capabilities(7)).

/// Stands for every capability there is.
pub const ALL: &str = "ALL";

/// Every capability, by the kernel's numbers (0 to 40).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A name as Docker's clients may write it (`net_admin`, `CAP_NET_ADMIN`, `all`) in the kernel's spelling, or [`ALL`];
/// it need not be the name of one.
pub fn normalize(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    if name == ALL || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// Whether a name in the kernel's spelling is one, or [`ALL`].
pub fn is_known(name: &str) -> bool {
    name == ALL || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized() {
        for (name, want, known) in [
            ("net_admin", "CAP_NET_ADMIN", true),
            ("CAP_NET_ADMIN", "CAP_NET_ADMIN", true),
            (" cap_Mknod", "CAP_MKNOD", true),
            ("all", "ALL", true),
            ("CAP_ALL", "CAP_ALL", false),
            ("flying", "CAP_FLYING", false),
            ("", "CAP_", false),
        ] {
            assert_eq!((&*normalize(name), is_known(&normalize(name))), (want, known), "{name}");
        }
    }
}
