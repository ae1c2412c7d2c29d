//! Which system calls may a container make? Docker's default policy.
//!
//! In: the container's capabilities and the processor's architecture. Out: [`Seccomp`], which is written into the OCI
//! specification as it stands: the names are kept as text and never held one by one.
//!
//! The rules are those that moby documents and publishes as its default profile (docs/security.md says which one).
//! What is not named fails with EPERM. Names that the board's libseccomp does not know are left out by the runtime.

use serde::ser::{Serialize, Serializer};

/// Fails as if the call were not permitted, unless a rule says otherwise.
const REFUSE: &str = "SCMP_ACT_ERRNO";
const ALLOW: &str = "SCMP_ACT_ALLOW";
const EPERM: u32 = 1;
/// Programs try the older call then.
const ENOSYS: u32 = 38;
/// Bits of clone(2) that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Address family of sockets to the hypervisor.
const AF_VSOCK: u64 = 40;
/// Execution domains of personality(2) that are allowed: Linux, 32 bits, with a name of version 2.6, both, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that every container may make.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid \
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname \
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl \
    ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 \
    madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 \
    pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead \
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send \
    sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn \
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range \
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 \
    times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 \
    utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that come with a capability.
const WITH: [(&str, &str); 14] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYSLOG", "syslog"),
    (
        CAP_SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
         quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];
const CAP_SYS_ADMIN: &str = "CAP_SYS_ADMIN";

/// An architecture of the kernel's, the ones whose programs its kernel runs too, and calls that only they have.
struct Machine {
    architectures: &'static [&'static str],
    calls: &'static str,
}

/// For the architecture the agent was built for, which is that of the board's userland. A 64-bit ARM kernel also runs
/// 32-bit images, whose calls have numbers of their own.
fn machine(architecture: &str) -> Machine {
    let arm = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";
    let (architectures, calls): (&[_], _) = match architecture {
        "aarch64" => (&["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"], arm),
        "arm" => (&["SCMP_ARCH_ARM"], arm),
        "riscv64" => (&["SCMP_ARCH_RISCV64"], "riscv_flush_icache"),
        "x86_64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "arch_prctl modify_ldt"),
        // Without a list it is the one that the runtime runs on.
        _ => (&[], ""),
    };
    Machine { architectures, calls }
}

/// The policy, as `linux.seccomp` has it.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seccomp {
    default_action: &'static str,
    default_errno_ret: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    architectures: &'static [&'static str],
    syscalls: Vec<Rule>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Names,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<[Argument; 1]>,
}

/// Names with spaces between them; a list when written.
#[derive(Debug)]
struct Names(&'static str);

#[derive(Debug, serde::Serialize)]
struct Argument {
    index: u32,
    value: u64,
    op: &'static str,
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.split_ascii_whitespace())
    }
}

fn allow(names: &'static str) -> Rule {
    Rule { names: Names(names), action: ALLOW, errno_ret: None, args: None }
}

/// Allowed if the first argument compares like this.
fn allow_if(name: &'static str, op: &'static str, value: u64) -> Rule {
    Rule { args: Some([Argument { index: 0, value, op }]), ..allow(name) }
}

/// The policy for a container with these capabilities on a processor of this architecture (as Rust names it).
pub(super) fn policy(capabilities: &[&str], architecture: &str) -> Seccomp {
    let machine = machine(architecture);
    let mut syscalls = vec![allow(ALWAYS)];
    syscalls.extend((!machine.calls.is_empty()).then(|| allow(machine.calls)));
    syscalls.push(allow_if("socket", "SCMP_CMP_NE", AF_VSOCK));
    syscalls.extend(PERSONALITIES.map(|domain| allow_if("personality", "SCMP_CMP_EQ", domain)));
    let has = |capability: &str| capabilities.contains(&capability);
    syscalls.extend(WITH.iter().filter(|(capability, _)| has(capability)).map(|(_, names)| allow(names)));
    if !has(CAP_SYS_ADMIN) {
        // None of these bits: what the masked bits are compared with is 0 when it is left out.
        syscalls.push(allow_if("clone", "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES));
        // Its flags are in memory, where no filter can look.
        syscalls.push(Rule { action: REFUSE, errno_ret: Some(ENOSYS), ..allow("clone3") });
    }
    Seccomp { default_action: REFUSE, default_errno_ret: EPERM, architectures: machine.architectures, syscalls }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What the policy says about a call: its action and condition, for each rule that names it.
    fn says(policy: &Value, call: &str) -> Vec<String> {
        let rules = policy["syscalls"].as_array().unwrap();
        let named = |rule: &&Value| rule["names"].as_array().unwrap().iter().any(|name| name == call);
        rules
            .iter()
            .filter(named)
            .map(|rule| match (&rule["args"][0], &rule["errnoRet"]) {
                (Value::Null, Value::Null) => rule["action"].as_str().unwrap().to_owned(),
                (Value::Null, errno) => format!("errno {errno}"),
                (argument, _) => format!("{} {}", argument["op"].as_str().unwrap(), argument["value"]),
            })
            .collect()
    }

    fn written(capabilities: &[&str], architecture: &str) -> Value {
        serde_json::to_value(policy(capabilities, architecture)).unwrap()
    }

    #[test]
    fn calls_depend_on_capabilities() {
        let check = |capabilities: &[&str], call: &str, want: &[&str]| {
            assert_eq!(says(&written(capabilities, "aarch64"), call), want, "{call} with {capabilities:?}");
        };
        for refused in ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "io_uring_setup", "reboot", "swapon"] {
            check(&["CAP_CHOWN"], refused, &[]);
        }
        check(&[], "read", &[ALLOW]);
        check(&[], "clone", &["SCMP_CMP_MASKED_EQ 2114060288"]);
        check(&[], "clone3", &["errno 38"]);
        check(&[], "socket", &["SCMP_CMP_NE 40"]);
        assert_eq!(says(&written(&[], "arm"), "personality").len(), PERSONALITIES.len());
        check(&["CAP_SYS_CHROOT"], "chroot", &[ALLOW]);
        check(&["CAP_SYS_TIME"], "clock_settime64", &[ALLOW]);
        check(&["CAP_SYS_ADMIN"], "mount", &[ALLOW]);
        check(&["CAP_SYS_ADMIN"], "clone", &[ALLOW]);
        check(&["CAP_SYS_ADMIN"], "clone3", &[ALLOW]);
        check(&["CAP_SYS_ADMIN"], "chroot", &[]);
    }

    #[test]
    fn boards_have_their_architectures_and_calls() {
        let check = |architecture: &str, want: Value, own: &str, foreign: &str| {
            let policy = written(&[], architecture);
            assert_eq!(policy["architectures"], want);
            assert_eq!((says(&policy, own).len(), says(&policy, foreign).len()), (1, 0), "{architecture}");
        };
        check("aarch64", serde_json::json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]), "cacheflush", "arch_prctl");
        check("arm", serde_json::json!(["SCMP_ARCH_ARM"]), "set_tls", "modify_ldt");
        let x86 = serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        check("x86_64", x86, "arch_prctl", "cacheflush");
        check("riscv64", serde_json::json!(["SCMP_ARCH_RISCV64"]), "riscv_flush_icache", "cacheflush");
        check("unheard-of", Value::Null, "read", "cacheflush");
    }

    #[test]
    fn the_table_is_in_order_and_names_each_call_once() {
        let all: Vec<&str> = ALWAYS.split_ascii_whitespace().collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        for (capability, names) in WITH {
            for name in names.split(' ') {
                assert!(!all.contains(&name), "{name} needs no {capability}");
            }
        }
    }
}
