//! Which user and groups does a container run as?
//!
//! In: `user[:group]` as Docker takes it, and the text of the image's `/etc/passwd` and
//! `/etc/group`. Out: numbers. Numbers need no entry in either file.

/// Highest user or group number, as in Docker.
const ID_MAX: u32 = i32::MAX as u32;
/// Most supplementary groups taken from an image; further ones are left out. The kernel allows
/// 65,536, but nobody means that.
const GROUPS_MAX: usize = 256;

/// The user a container's first process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
    /// Supplementary groups; none if a group was given.
    pub groups: Vec<u32>,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// Not a number, and not in the image's `/etc/passwd`.
    #[error("unable to find user {0}: no matching entries in the image's passwd file")]
    NoUser(String),
    /// Not a number, and not in the image's `/etc/group`.
    #[error("unable to find group {0}: no matching entries in the image's group file")]
    NoGroup(String),
    /// A number that Linux has no room for.
    #[error("user and group numbers must be between 0 and {ID_MAX}, not {0}")]
    Range(String),
    /// More than a process may be in.
    #[error("more than {GROUPS_MAX} supplementary groups")]
    TooMany,
}

/// True if `text` cannot be answered without the image's files.
pub fn needs_files(text: &str) -> bool {
    // A bare number may still have a primary group and supplementary groups in the files.
    !text.split_once(':').is_some_and(|(user, group)| is_number(user) && is_number(group))
}

/// Whether the image's files are needed for any of these groups.
pub fn groups_need_files(groups: &[String]) -> bool {
    groups.iter().any(|group| !is_number(group))
}

/// Adds the groups that a service asks for, names or numbers, to a user's.
pub fn add_groups(user: &mut User, groups: &[String], group: &str) -> Result<(), BadUser> {
    for text in groups {
        let found = group.lines().filter_map(Entry::group).find(|entry| entry.is(text)).map(|entry| entry.id);
        let id = found.or(number(text)?).ok_or_else(|| BadUser::NoGroup(text.clone()))?;
        if !user.groups.contains(&id) {
            if user.groups.len() >= GROUPS_MAX {
                return Err(BadUser::TooMany);
            }
            user.groups.push(id);
        }
    }
    Ok(())
}

/// Resolves `user`, `user:group`, `:group`; empty is root.
pub fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, BadUser> {
    let (user_text, group_text) = text.split_once(':').unwrap_or((text, ""));
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let entry = passwd.lines().filter_map(Entry::passwd).find(|entry| entry.is(user_text));
    let uid = match (&entry, number(user_text)?) {
        (Some(entry), _) => entry.id,
        (None, Some(uid)) => uid,
        (None, None) => return Err(BadUser::NoUser(user_text.to_owned())),
    };
    let mut user = User { uid, gid: entry.as_ref().map_or(0, |entry| entry.gid), groups: Vec::new() };
    if !group_text.is_empty() {
        let found = group.lines().filter_map(Entry::group).find(|entry| entry.is(group_text));
        user.gid = match (found, number(group_text)?) {
            (Some(entry), _) => entry.id,
            (None, Some(gid)) => gid,
            (None, None) => return Err(BadUser::NoGroup(group_text.to_owned())),
        };
    } else if let Some(entry) = entry {
        let member = |of: &Entry<'_>| of.members.split(',').any(|member| member == entry.name);
        user.groups = group.lines().filter_map(Entry::group).filter(member).map(|of| of.id).take(GROUPS_MAX).collect();
    }
    Ok(user)
}

/// One line of either file; lines that make no sense are skipped, as the C library does.
struct Entry<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    members: &'a str,
}

impl<'a> Entry<'a> {
    /// `name:password:uid:gid:…`
    fn passwd(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, id, gid, members: "" })
    }

    /// `name:password:gid:member,…`
    fn group(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        Some(Self { name, id, gid: id, members: fields.next().unwrap_or_default() })
    }

    /// A name wins over a number only by coming first, as in Docker.
    fn is(&self, text: &str) -> bool {
        self.name == text || text.parse() == Ok(self.id)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `Ok(None)` if `text` is a name.
fn number(text: &str) -> Result<Option<u32>, BadUser> {
    if !is_number(text) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|number| *number <= ID_MAX);
    number.map(Some).ok_or_else(|| BadUser::Range(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/srv:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nvideo:x:44:www,pi\nbroken:x\naudio:x:29:pi\n";

    #[track_caller]
    fn check(text: &str, want: Result<(u32, u32, &[u32]), BadUser>) {
        let want = want.map(|(uid, gid, groups)| User { uid, gid, groups: groups.to_vec() });
        assert_eq!(resolve(text, PASSWD, GROUP), want, "{text}");
    }

    #[test]
    fn users_as_docker_takes_them() {
        check("", Ok((0, 0, &[])));
        let admin = resolve("", "root:x:0:0::/:/bin/sh\n", "root:x:0:root\nadm:x:4:pi,root\n").unwrap();
        assert_eq!(admin.groups, [0, 4]);
        check("www", Ok((33, 34, &[44])));
        check("33", Ok((33, 34, &[44])));
        check("www:audio", Ok((33, 29, &[])));
        check("1000", Ok((1000, 0, &[])));
        check("1000:1001", Ok((1000, 1001, &[])));
        check("www:", Ok((33, 34, &[44])));
        check(":video", Ok((0, 44, &[])));
        check("nobody", Err(BadUser::NoUser("nobody".into())));
        check("www:nobody", Err(BadUser::NoGroup("nobody".into())));
        check("4294967295", Err(BadUser::Range("4294967295".into())));
        check("0:99999999999", Err(BadUser::Range("99999999999".into())));
    }

    #[test]
    fn only_two_numbers_need_no_files() {
        assert!(!needs_files("1:2"));
        for text in ["", "1", "www", "1:www", "1:"] {
            assert!(needs_files(text), "{text}");
        }
        assert!(!groups_need_files(&["1".into()]) && groups_need_files(&["1".into(), "www".into()]));
    }

    #[track_caller]
    fn check_groups(groups: &[&str], want: Result<&[u32], BadUser>) {
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        let mut user = User { uid: 33, gid: 34, groups: vec![44] };
        let added = add_groups(&mut user, &groups, GROUP);
        assert_eq!(added.map(|()| user.groups.as_slice()), want);
    }

    #[test]
    fn a_service_adds_groups() {
        check_groups(&["audio", "7", "video", "44", "audio"], Ok(&[44, 29, 7]));
        check_groups(&["dialout"], Err(BadUser::NoGroup("dialout".into())));
        check_groups(&["-1"], Err(BadUser::NoGroup("-1".into())));
        check_groups(&["2147483648"], Err(BadUser::Range("2147483648".into())));
        let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        assert_eq!(add_groups(&mut User::default(), &many, GROUP), Err(BadUser::TooMany));
    }
}
