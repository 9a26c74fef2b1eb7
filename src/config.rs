//! Config: the process's surroundings.
//!
//! Owns: reading the environment. May use: std. Never: interprets what it reads; whoever asks for it does.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where keys and state are kept, unless said otherwise.
pub const DATA_DIR: &str = "chancery-data";
/// Where proxies connect, unless said otherwise.
pub const XDS_ADDRESS: &str = "127.0.0.1:18000";
/// Where operators look, unless said otherwise.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:18080";

/// The environment variables that Chancery looks at, beyond those that name a flag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<PathBuf>,
    /// `ENVOY_BIN`: the Envoy to use.
    pub envoy_bin: Option<PathBuf>,
    /// `CHANCERY_ENVOY_IMAGE`: the container image whose Envoys the conformance tests run, instead of a binary.
    pub envoy_image: Option<String>,
}

// === impl Environment ===

impl Environment {
    /// Reads the process's environment. An empty variable is as good as none.
    pub fn read() -> Self {
        Self {
            path: variable("PATH"),
            home: variable("HOME").map(PathBuf::from),
            xdg_cache_home: variable("XDG_CACHE_HOME").map(PathBuf::from),
            envoy_bin: variable("ENVOY_BIN").map(PathBuf::from),
            envoy_image: variable("CHANCERY_ENVOY_IMAGE").and_then(|image| image.into_string().ok()),
        }
    }

    /// The user's cache directory: `XDG_CACHE_HOME` if it is absolute, else `~/.cache`.
    pub fn cache(&self) -> Option<PathBuf> {
        let xdg = self.xdg_cache_home.clone().filter(|path| path.is_absolute());
        xdg.or_else(|| self.home.as_ref().map(|home| home.join(".cache")))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_xdg_says_it_is() {
        let home = Some(PathBuf::from("/home/ada"));
        let relative = Environment {
            home: home.clone(),
            xdg_cache_home: Some(PathBuf::from("relative")),
            ..Environment::default()
        };
        let absolute = Environment { home, xdg_cache_home: Some(PathBuf::from("/var/ada")), ..Environment::default() };
        assert_eq!(absolute.cache(), Some(PathBuf::from("/var/ada")));
        assert_eq!(relative.cache(), Some(PathBuf::from("/home/ada/.cache")));
        assert_eq!(Environment::default().cache(), None);
    }
}
