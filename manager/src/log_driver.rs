//! What a service's log driver means on a board. Pure.
//!
//! In: the driver's name and options, as clients send them. Out: a [`LogConfig`], or why there is none. The API asks to
//! refuse, the dispatcher to tell boards.

use racimo_common::object::LogConfig;
use racimo_common::units::Bytes;

use crate::limits::{LOG_FILE_BYTES_MIN, LOG_FILES_MAX};
use crate::store::LogDriver;

/// Why a log driver is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLogDriver {
    /// There is no such driver here.
    #[error("log driver {0:?} is not supported: expected json-file, local (both: files on the board) or none")]
    Driver(String),
    /// There is no such option here.
    #[error("log option {option:?} is not supported for log driver {driver:?}: expected max-size or max-file")]
    Option {
        /// The driver.
        driver: String,
        /// Its option.
        option: String,
    },
    /// A driver that keeps nothing has nothing to limit.
    #[error("log option {0:?}: log driver none takes no options")]
    NoneTakesNone(String),
    /// Not a size, or one that cannot be held.
    #[error("log option max-size {text:?}: expected a size of at least {least}, such as 5m")]
    Size {
        /// What was given.
        text: String,
        /// The smallest size.
        least: Bytes,
    },
    /// Not a number of files.
    #[error("log option max-file {0:?}: expected a number from 1 to {LOG_FILES_MAX}")]
    Files(String),
}

/// Where a task's output goes; without a driver (or with one without a name): into files of the default size.
///
/// # Errors
/// A driver or an option that is not supported.
pub fn config(driver: Option<&LogDriver>) -> Result<LogConfig, BadLogDriver> {
    let Some(driver) = driver else { return Ok(LogConfig::default()) };
    match driver.name.as_str() {
        "" | "json-file" | "local" => files(driver),
        "none" => match driver.options.keys().next() {
            None => Ok(LogConfig::None),
            Some(option) => Err(BadLogDriver::NoneTakesNone(option.clone())),
        },
        other => Err(BadLogDriver::Driver(other.to_owned())),
    }
}

fn files(driver: &LogDriver) -> Result<LogConfig, BadLogDriver> {
    let LogConfig::Files { mut size_max, mut files_max } = LogConfig::default() else { return Ok(LogConfig::None) };
    for (option, text) in &driver.options {
        match option.as_str() {
            "max-size" => {
                let size: Option<Bytes> = text.parse().ok();
                let fits = size.filter(|size| size.get() >= LOG_FILE_BYTES_MIN);
                size_max = fits
                    .ok_or_else(|| BadLogDriver::Size { text: text.clone(), least: Bytes::new(LOG_FILE_BYTES_MIN) })?;
            }
            "max-file" => {
                let number: Option<u32> = text.parse().ok();
                let fits = number.filter(|number| (1..=LOG_FILES_MAX).contains(number));
                files_max = fits.ok_or_else(|| BadLogDriver::Files(text.clone()))?;
            }
            other => {
                return Err(BadLogDriver::Option { driver: driver.name.clone(), option: other.to_owned() });
            }
        }
    }
    Ok(LogConfig::Files { size_max, files_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, options: &[(&str, &str)]) -> LogDriver {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogDriver { name: name.to_owned(), options }
    }

    #[track_caller]
    fn check(name: &str, options: &[(&str, &str)], bytes: u64, files: u32) {
        let want = LogConfig::Files { size_max: Bytes::new(bytes), files_max: files };
        assert_eq!(config(Some(&driver(name, options))), Ok(want));
    }

    #[track_caller]
    fn check_refused(name: &str, options: &[(&str, &str)], words: &str) {
        let refused = config(Some(&driver(name, options))).expect_err("a refusal").to_string();
        assert!(refused.contains(words), "{refused}");
    }

    #[test]
    fn files_on_the_board() {
        assert_eq!(config(None), Ok(LogConfig::default()));
        for name in ["", "json-file", "local"] {
            check(name, &[], 5 << 20, 2);
        }
        check("json-file", &[("max-size", "10m"), ("max-file", "3")], 10 << 20, 3);
        check("local", &[("max-size", "64k")], 64 << 10, 2);
        check("", &[("max-file", "1")], 5 << 20, 1);
    }

    #[test]
    fn nothing_is_kept() {
        assert_eq!(config(Some(&driver("none", &[]))), Ok(LogConfig::None));
        check_refused("none", &[("max-size", "1m")], "takes no options");
    }

    #[test]
    fn what_is_refused() {
        check_refused("syslog", &[], "\"syslog\" is not supported");
        check_refused("JSON-FILE", &[], "is not supported");
        check_refused("json-file", &[("compress", "true")], "\"compress\" is not supported");
        for size in ["", "0", "-1", "1k", "many", "99999999999999g"] {
            check_refused("json-file", &[("max-size", size)], "max-size");
        }
        for files in ["", "0", "-1", "101", "two", "1.5"] {
            check_refused("local", &[("max-file", files)], "max-file");
        }
    }
}
