//! `-o`: what mount(8), fstab and people write there, as values.

use super::printing::parse_size;

/// Everything that `-o` can say; None or false: not said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct MountFlags {
    pub(super) read_only: bool,
    pub(super) degraded: bool,
    pub(super) force: bool,
    pub(super) writeback: bool,
    pub(super) synchronous: bool,
    pub(super) no_atime: bool,
    pub(super) no_exec: bool,
    pub(super) no_suid: Option<bool>,
    pub(super) no_dev: Option<bool>,
    pub(super) allow_other: Option<bool>,
    pub(super) threads: Option<usize>,
    pub(super) read_ahead_kib: Option<u32>,
    pub(super) cache_bytes: Option<u64>,
    pub(super) index_cache_bytes: Option<u64>,
    pub(super) dirty_bytes: Option<u64>,
    pub(super) commit_seconds: Option<u64>,
    pub(super) wait_seconds: Option<u64>,
    /// Seconds; None inside: never.
    pub(super) repair_seconds: Option<Option<u64>>,
    pub(super) log: Option<String>,
    pub(super) on_event: Option<String>,
}

impl MountFlags {
    /// Reads all of them; later ones win. An option that does not exist is refused by name.
    pub(super) fn parse(lists: &[String]) -> Result<MountFlags, String> {
        let mut flags = MountFlags::default();
        for word in lists.iter().flat_map(|list| list.split(',')) {
            flags.take(word.trim())?;
        }
        Ok(flags)
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let size = || parse_size(value).map_err(|error| format!("-o {name}=SIZE: {error}"));
        let number = || {
            value.parse::<u64>().map_err(|_| format!("-o {name}=NUMBER: \"{value}\" is no number"))
        };
        match name {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "degraded" => self.degraded = true,
            "force" => self.force = true,
            "writeback" => self.writeback = true,
            "sync" => self.synchronous = true,
            "async" => self.synchronous = false,
            "noatime" => self.no_atime = true,
            "relatime" | "atime" => self.no_atime = false,
            "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "nosuid" | "suid" => self.no_suid = Some(name == "nosuid"),
            "nodev" | "dev" => self.no_dev = Some(name == "nodev"),
            "allow_other" => self.allow_other = Some(true),
            "threads" => self.threads = Some(number()?.clamp(3, 256) as usize),
            "read_ahead" => {
                self.read_ahead_kib = Some(u32::try_from(size()? / 1024).unwrap_or(u32::MAX));
            }
            "cache" => self.cache_bytes = Some(size()?),
            "index_cache" => self.index_cache_bytes = Some(size()?.max(1 << 20)),
            "dirty" => self.dirty_bytes = Some(size()?.max(16 << 20)),
            "commit" => self.commit_seconds = Some(number()?.max(1)),
            "repair" if value == "never" => self.repair_seconds = Some(None),
            "repair" => self.repair_seconds = Some(Some(number()?)),
            "wait" => self.wait_seconds = Some(number()?),
            "log" => self.log = Some(value.to_string()),
            "on_event" => self.on_event = Some(value.to_string()),
            // What mount(8) and fstab add for themselves.
            ""
            | "defaults"
            | "auto"
            | "noauto"
            | "nofail"
            | "_netdev"
            | "user"
            | "nouser"
            | "users"
            | "owner"
            | "group"
            | "comment"
            | "default_permissions"
            | "nodiratime"
            | "strictatime"
            | "lazytime"
            | "nolazytime"
            | "silent"
            | "loud" => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            _ => return Err(format!("-o {word}: no such option; docs/options.md lists them")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountFlags, String> {
        MountFlags::parse(&[text.to_string()])
    }

    #[test]
    fn what_fstab_and_mount_write_is_understood() {
        let flags = parse("rw,noauto,x-systemd.device-timeout=30,noatime,nosuid,cache=1G,wait=60")
            .expect("all are known");
        assert!(flags.no_atime && !flags.read_only);
        assert_eq!(flags.no_suid, Some(true));
        assert_eq!(flags.no_dev, None);
        assert_eq!(flags.cache_bytes, Some(1 << 30));
        assert_eq!(flags.wait_seconds, Some(60));
        assert_eq!(parse("repair=60").map(|flags| flags.repair_seconds), Ok(Some(Some(60))));
        assert_eq!(parse("repair=never").map(|flags| flags.repair_seconds), Ok(Some(None)));
        assert_eq!(parse("defaults"), Ok(MountFlags::default()));
    }

    #[test]
    fn later_options_win_and_lists_add_up() {
        let lists = ["ro,suid".to_string(), "rw,nosuid,degraded".to_string()];
        let flags = MountFlags::parse(&lists).expect("all are known");
        assert!(!flags.read_only && flags.degraded);
        assert_eq!(flags.no_suid, Some(true));
    }

    #[test]
    fn what_does_not_exist_is_refused_by_name() {
        assert!(parse("ro,frobnicate").expect_err("refused").contains("frobnicate"));
        assert!(parse("cache=lots").expect_err("refused").contains("cache"));
        assert!(parse("repair=soon").expect_err("refused").contains("repair"));
        assert!(parse("threads=many").expect_err("refused").contains("threads"));
        assert_eq!(parse("threads=1").map(|flags| flags.threads), Ok(Some(3)));
    }
}
