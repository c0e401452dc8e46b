//! Where values come from: the file, an `--env-file`, the environment, the flags; the later wins.
//!
//! A layer knows which settings exist and where each value stood. It does not know what a value means:
//! that is [`super::Settings`]' business, once all layers lie on each other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, Key, Kind, PREFIX};
use super::{HIDDEN, SettingsError, service_url};
use crate::named_file;

/// The settings file that is read when there is one and no other is named.
pub const DEFAULT_FILE: &str = "jam-mqtt.toml";

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by `--config`. It must exist.
    pub config: Option<PathBuf>,
    /// Read when `config` is `None`, if it exists.
    pub default_config: Option<PathBuf>,
    /// The file named by `--env-file`. It must exist.
    pub env_file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `JAM_MQTT_` are not looked at.
    pub environment: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
}

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// `--mqtt`
    pub name: &'static str,
    /// The setting's path: `listen.mqtt`.
    pub path: &'static str,
    /// As it stands there.
    pub value: String,
}

/// Where a value stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File { file: PathBuf, line: usize },
    EnvFile { file: PathBuf, variable: String },
    Environment { variable: String },
    Flag { name: &'static str },
}

impl Origin {
    /// The file that the value stands in.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } | Self::EnvFile { file, .. } => Some(file),
            Self::Default | Self::Environment { .. } | Self::Flag { .. } => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File { file, line } => write!(f, "{}, line {line}", file.display()),
            Self::EnvFile { file, variable } => write!(f, "{variable} in {}", file.display()),
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// The text of a value and where it stood.
#[derive(Clone)]
pub(super) struct Entry {
    key: &'static Key,
    text: String,
    pub(super) origin: Origin,
}

impl Entry {
    /// The text itself, secrets included: to be used, never to be shown.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }

    /// The text as people are shown it.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        match self.key.kind {
            Kind::Secret if !self.text.is_empty() => Cow::Borrowed(HIDDEN),
            Kind::Url => service_url::shown(&self.text),
            _ => Cow::Borrowed(&self.text),
        }
    }

    /// Whether something of it is never shown.
    pub(super) fn is_secret(&self) -> bool {
        self.shown() != self.text
    }
}

/// A value for each setting. `Debug` shows none: some of them are secret.
#[derive(Clone)]
pub(super) struct Values(BTreeMap<&'static str, Entry>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} values]", self.0.len())
    }
}

impl Values {
    /// All defaults.
    pub(super) fn defaults() -> Self {
        let entry = |key: &'static Key| Entry {
            key,
            text: key.default.to_owned(),
            origin: Origin::Default,
        };
        Self(KEYS.iter().map(|key| (key.path, entry(key))).collect())
    }

    /// Lays all layers on each other.
    pub(super) fn read(sources: &Sources) -> Result<Self, SettingsError> {
        let mut values = Self::defaults();
        if let Some(file) = &sources.config {
            values.lay_file(file)?;
        } else if let Some(file) = sources.default_config.as_ref().filter(|file| file.exists()) {
            values.lay_file(file)?;
        }
        let tls_by_env_file = match &sources.env_file {
            Some(file) => values.lay_env_file(file)?,
            None => false,
        };
        for (variable, text) in &sources.environment {
            if let Some(key) = variable_key(variable, "the environment")? {
                values.set(
                    key,
                    text.clone(),
                    Origin::Environment {
                        variable: variable.clone(),
                    },
                );
            }
        }
        for flag in &sources.flags {
            let origin = Origin::Flag { name: flag.name };
            values.set(setting(flag.path), flag.value.clone(), origin);
        }
        // The first implementation listens on one port only; with TLS, plain TCP must be asked for.
        if tls_by_env_file && values.get("listen.mqtt").origin == Origin::Default {
            let origin = values.get("tls.cert").origin.clone();
            values.set(setting("listen.mqtt"), String::new(), origin);
        }
        Ok(values)
    }

    /// The value of a setting.
    pub(super) fn get(&self, path: &str) -> &Entry {
        self.0
            .get(path)
            .expect("every setting of the table has a value")
    }

    fn set(&mut self, key: &'static Key, text: String, origin: Origin) {
        self.0.insert(key.path, Entry { key, text, origin });
    }

    fn lay_file(&mut self, file: &Path) -> Result<(), SettingsError> {
        let text = read(file)?;
        let table = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            SettingsError::new(format!(
                "{}, line {line}: {}",
                file.display(),
                error.message()
            ))
        })?;
        for (name, value) in table.get_ref() {
            let line = line_of(&text, name.span().start);
            let place = Place { file, line };
            if let Some(section) = value.get_ref().as_table() {
                let section_name: &str = name.get_ref();
                if !KEYS.iter().any(|key| key.section() == section_name) {
                    return Err(place.unknown_section(section_name));
                }
                for (name, value) in section {
                    let line = line_of(&text, name.span().start);
                    let path = format!("{section_name}.{}", name.get_ref());
                    self.lay_value(&Place { file, line }, &path, value.get_ref())?;
                }
            } else {
                self.lay_value(&place, name.get_ref(), value.get_ref())?;
            }
        }
        Ok(())
    }

    fn lay_value(
        &mut self,
        place: &Place<'_>,
        path: &str,
        value: &DeValue<'_>,
    ) -> Result<(), SettingsError> {
        let key = keys::find(path).ok_or_else(|| place.unknown(path))?;
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Array(items) if matches!(key.kind, Kind::List(_)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str());
                let texts: Option<Vec<_>> = texts.collect();
                texts.map(|texts| texts.join(",")).ok_or_else(|| {
                    let expected = key.kind.expected();
                    SettingsError::new(format!("{place}: {path}: expected {expected}"))
                })?
            }
            other => {
                return Err(SettingsError::new(format!(
                    "{place}: {path} is {} {}, expected {}",
                    if other.is_array() { "an" } else { "a" },
                    other.type_str(),
                    key.kind.expected()
                )));
            }
        };
        let origin = Origin::File {
            file: place.file.to_owned(),
            line: place.line,
        };
        self.set(key, text, origin);
        Ok(())
    }

    /// Lays the first implementation's variables and any `JAM_MQTT_` ones; true if they switch TLS on.
    fn lay_env_file(&mut self, file: &Path) -> Result<bool, SettingsError> {
        let variables = super::env_file::parse(&read(file)?)
            .map_err(|why| SettingsError::new(format!("{}: {why}", file.display())))?;
        let theirs = |wanted: &str| {
            let mut all = variables.iter().rev();
            let found =
                all.find(|(name, text)| name.eq_ignore_ascii_case(wanted) && !text.is_empty());
            found.map(|(name, text)| (name.clone(), text.clone()))
        };
        let tls = theirs("tls_cert").is_some() && theirs("tls_key").is_some();
        let port_path = if tls { "listen.mqtts" } else { "listen.mqtt" };
        if tls && theirs("port").is_none() && self.get("listen.mqtts").expose().is_empty() {
            let origin = Origin::EnvFile {
                file: file.to_owned(),
                variable: "tls_cert".to_owned(),
            };
            self.set(setting("listen.mqtts"), "0.0.0.0:8883".to_owned(), origin);
        }
        for (theirs_name, path) in [
            ("db_path", "directory.url"),
            ("port", port_path),
            ("tls_cert", "tls.cert"),
            ("tls_key", "tls.key"),
            ("tls_ca", "tls.chain"),
            ("firebase_account_key_path", "push.fcm_key"),
        ] {
            let Some((variable, text)) = theirs(theirs_name) else {
                continue;
            };
            let text = match theirs_name {
                "db_path" => format!("sqlite:{text}"),
                "port" => format!("0.0.0.0:{text}"),
                _ => text,
            };
            self.set(
                setting(path),
                text,
                Origin::EnvFile {
                    file: file.to_owned(),
                    variable,
                },
            );
        }
        for (variable, text) in variables {
            if let Some(key) = variable_key(&variable, &file.display().to_string())? {
                self.set(
                    key,
                    text,
                    Origin::EnvFile {
                        file: file.to_owned(),
                        variable,
                    },
                );
            }
        }
        Ok(tls)
    }
}

/// The setting of a name that stands in this program.
fn setting(path: &str) -> &'static Key {
    keys::find(path).expect("names that the program says are settings of the table")
}

/// A place in the settings file.
struct Place<'a> {
    file: &'a Path,
    line: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

impl Place<'_> {
    fn unknown(&self, path: &str) -> SettingsError {
        let nearest = keys::nearest(path, KEYS.iter().map(|key| key.path)).unwrap_or_default();
        SettingsError::new(format!(
            "{self}: unknown setting {path}; did you mean {nearest}?"
        ))
    }

    fn unknown_section(&self, name: &str) -> SettingsError {
        let sections = KEYS
            .iter()
            .map(Key::section)
            .filter(|section| !section.is_empty());
        let nearest = keys::nearest(name, sections).unwrap_or_default();
        SettingsError::new(format!(
            "{self}: unknown section [{name}]; did you mean [{nearest}]?"
        ))
    }
}

/// A variable without a section that is no setting, but this few letters from one, is a slip; any other is
/// somebody else's, such as a script's `JAM_MQTT_BIN`.
const SLIP: usize = 2;

/// The setting an environment variable names; `None` for a variable that is not ours.
fn variable_key(variable: &str, place: &str) -> Result<Option<&'static Key>, SettingsError> {
    if !variable.starts_with(PREFIX) || is_service_link(variable) {
        return Ok(None);
    }
    if let Some(key) = KEYS.iter().find(|key| key.variable() == variable) {
        return Ok(Some(key));
    }
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let nearest = keys::nearest(variable, known.iter().map(String::as_str)).unwrap_or_default();
    if !variable.contains("__") && strsim::damerau_levenshtein(variable, nearest) > SLIP {
        return Ok(None);
    }
    Err(SettingsError::new(format!(
        "unknown variable {variable} in {place}; did you mean {nearest}?"
    )))
}

/// Kubernetes and Docker announce a service called `jam-mqtt` to its neighbours, and to itself, by
/// variables such as `JAM_MQTT_PORT_1883_TCP` and `JAM_MQTT_SERVICE_HOST`.
fn is_service_link(variable: &str) -> bool {
    let rest = &variable[PREFIX.len()..];
    ["PORT_", "SERVICE_", "ENV_"]
        .iter()
        .any(|start| rest.starts_with(start))
        || rest == "PORT"
        || rest == "NAME"
}

fn read(file: &Path) -> Result<String, SettingsError> {
    named_file::read_text(file)
        .map_err(|error| SettingsError::new(format!("cannot read {}: {error}", file.display())))
}

/// Counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
}
