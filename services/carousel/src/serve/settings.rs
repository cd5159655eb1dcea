//! The settings of `serve`, each with where it comes from: flag, then environment, then file, then default.

use cli::args::ServeArgs;
use eventlog::bus::redacted;
use runtime::config::ConfigError;

use super::FileConfig;

/// Where the API listens when nothing is said.
const LISTEN: &str = "127.0.0.1:3025";
/// Where the admin endpoint listens when nothing is said.
const ADMIN_LISTEN: &str = "127.0.0.1:3026";
/// The log of a data directory that has begun none yet.
const LOG: &str = "embedded";
/// Where keys are made when nothing was ever said.
const KEYS: &str = "files";

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File(String),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    origin: Origin,
}

impl<T> Setting<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: change(self.value),
            origin: self.origin,
        }
    }
}

impl Setting<Option<String>> {
    /// The value, or what is usual where nobody said anything.
    fn or(self, usual: &str) -> Setting<String> {
        self.map(|value| value.unwrap_or_else(|| usual.to_owned()))
    }
}

/// A key that has no flag.
const NO_FLAG: (&str, &Option<String>) = ("", &None);

/// Where values are looked for beside the command line.
struct Sources<E> {
    env: E,
    /// The file, as it was named.
    path: String,
}

impl<E: Fn(&str) -> Result<Option<String>, ConfigError>> Sources<E> {
    /// The first of flag, variable and file that says anything.
    fn pick(
        &self,
        (flag, typed): (&'static str, &Option<String>),
        variable: &'static str,
        file: &Option<String>,
    ) -> Result<Setting<Option<String>>, ConfigError> {
        let found = |value: String, origin| Setting {
            value: Some(value),
            origin,
        };
        if let Some(value) = typed {
            return Ok(found(value.clone(), Origin::Flag(flag)));
        }
        if let Some(value) = (self.env)(variable)? {
            return Ok(found(value, Origin::Environment(variable)));
        }
        Ok(match file {
            Some(value) => found(value.clone(), Origin::File(self.path.clone())),
            None => Setting {
                value: None,
                origin: Origin::Default,
            },
        })
    }
}

/// `a, b` as a list.
fn split(names: &str) -> Vec<String> {
    let names = names.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
        .collect()
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) listen: Setting<String>,
    pub(super) advertise: Setting<Vec<String>>,
    pub(super) public_url: Setting<Option<String>>,
    pub(super) admin_listen: Setting<String>,
    /// None: the log that this data directory remembers, else the embedded one.
    pub(super) log: Setting<Option<String>>,
    /// None: where keys were made before, else in files.
    pub(super) keys: Setting<Option<String>>,
    pub(super) log_format: Setting<String>,
    pub(super) log_filter: Setting<String>,
}

impl Settings {
    /// Reads the environment beside what was typed and what the file says.
    ///
    /// # Errors
    /// [`ConfigError::NotUnicode`].
    pub(super) fn read(args: &ServeArgs, file: &FileConfig) -> Result<Self, ConfigError> {
        Self::read_from(args, file, runtime::config::env)
    }

    pub(super) fn read_from(
        args: &ServeArgs,
        file: &FileConfig,
        env: impl Fn(&str) -> Result<Option<String>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let path = args.config.as_ref().map(|path| path.display().to_string());
        let sources = Sources {
            env,
            path: path.unwrap_or_default(),
        };
        // Flags repeat, a variable lists: both give one list, and the one does not add to the other.
        let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
        let (listen, admin) = (("--listen", &args.listen), ("--admin-listen", &args.admin_listen));
        let (names, file_names) = (list(&args.advertise), list(&file.advertise));
        let log = sources.pick(("--log", &args.log), "CAROUSEL_EVENT_LOG", &file.log)?;
        let names = sources.pick(("--advertise", &names), "CAROUSEL_ADVERTISE", &file_names)?;
        let filter = runtime::telemetry::LOG_VARIABLE;
        Ok(Self {
            listen: sources.pick(listen, "CAROUSEL_LISTEN", &file.listen)?.or(LISTEN),
            advertise: names.map(|names| split(names.as_deref().unwrap_or_default())),
            public_url: sources.pick(
                ("--public-url", &args.public_url),
                "CAROUSEL_PUBLIC_URL",
                &file.public_url,
            )?,
            admin_listen: sources
                .pick(admin, "CAROUSEL_ADMIN_LISTEN", &file.admin_listen)?
                .or(ADMIN_LISTEN),
            log,
            keys: sources.pick(("--keys", &args.keys), "CAROUSEL_KEYS", &file.keys)?,
            log_format: sources
                .pick(NO_FLAG, "CAROUSEL_LOG_FORMAT", &file.log_format)?
                .or("text"),
            log_filter: sources.pick(NO_FLAG, filter, &file.log_filter)?.or("info"),
        })
    }

    /// One line per key: where it comes from, the key, its value as the file would say it; the log without
    /// credentials.
    pub(super) fn with_origins(&self) -> String {
        let quoted = |value: &str| format!("{value:?}");
        let names: Vec<_> = self.advertise.value.iter().map(|name| quoted(name)).collect();
        let log = redacted(self.log.value.as_deref().unwrap_or(LOG));
        let rows = [
            (&self.listen.origin, "listen", quoted(&self.listen.value)),
            (
                &self.advertise.origin,
                "advertise",
                format!("[{}]", names.join(", ")),
            ),
            (
                &self.public_url.origin,
                "public_url",
                // As the `ready` line: nobody knows it before the start.
                quoted(self.public_url.value.as_deref().unwrap_or_default()),
            ),
            (
                &self.admin_listen.origin,
                "admin_listen",
                quoted(&self.admin_listen.value),
            ),
            (&self.log.origin, "log", quoted(&log)),
            (
                &self.keys.origin,
                "keys",
                quoted(self.keys.value.as_deref().unwrap_or(KEYS)),
            ),
            (
                &self.log_format.origin,
                "log_format",
                quoted(&self.log_format.value),
            ),
            (
                &self.log_filter.origin,
                "log_filter",
                quoted(&self.log_filter.value),
            ),
        ];
        let width = rows
            .iter()
            .map(|(origin, ..)| origin.to_string().len())
            .max()
            .unwrap_or(0);
        rows.iter()
            .map(|(origin, key, value)| format!("{:width$}  {key} = {value}\n", origin.to_string()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use cli::args::{Cli, Command};

    use super::*;

    fn args(line: &str) -> ServeArgs {
        let words = ["carousel", "serve", "--data-dir", "d"];
        let words = words.into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_goes_before_the_environment_that_before_the_file_and_each_says_so() {
        let file = FileConfig {
            listen: Some("10.0.0.3:1".into()),
            admin_listen: Some("10.0.0.3:2".into()),
            log: Some("embedded".into()),
            ..FileConfig::default()
        };
        let env = |name: &str| {
            Ok(match name {
                "CAROUSEL_LISTEN" => Some("10.0.0.2:1".to_owned()),
                "CAROUSEL_ADMIN_LISTEN" => Some("10.0.0.2:2".to_owned()),
                "CAROUSEL_ADVERTISE" => Some("cp.example, [2001:db8::1]".to_owned()),
                _ => None,
            })
        };
        let found = Settings::read_from(&args("--config f.toml --listen 10.0.0.1:1"), &file, env).unwrap();
        let expected = "\
--listen               listen = \"10.0.0.1:1\"
CAROUSEL_ADVERTISE     advertise = [\"cp.example\", \"[2001:db8::1]\"]
default                public_url = \"\"
CAROUSEL_ADMIN_LISTEN  admin_listen = \"10.0.0.2:2\"
file:f.toml            log = \"embedded\"
default                keys = \"files\"
default                log_format = \"text\"
default                log_filter = \"info\"
";
        assert_eq!(found.with_origins(), expected);
    }

    #[test]
    fn what_is_printed_is_refused_as_at_the_start_and_shows_no_credential() {
        let printed = |text: &str| crate::serve::printed(&args("--config f.toml"), text);
        let shown = printed("log = \"nats://u:hunter2@a:4222,nats://b\"\n").unwrap();
        assert!(shown.contains("log = \"nats://a:4222,nats://b\"\n"), "{shown}");
        for text in [
            "log = \"nats://u:hunter2,3@a\"",
            "log_filter = \"gateway=loud\"",
            "listen = \"0.0.0.0:1\"",
            "log_format = \"xml\"",
            "log_formt = \"json\"",
        ] {
            let refused = printed(text).unwrap_err().to_string();
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn without_a_word_everything_is_the_default_and_the_log_is_the_remembered_one() {
        let found = Settings::read_from(&args(""), &FileConfig::default(), |_| Ok(None)).unwrap();
        assert_eq!((found.listen.value.as_str(), found.log.value), (LISTEN, None));
    }
}
