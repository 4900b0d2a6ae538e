//! `routing.yaml`: which stream keeps which event types, and who receives them.
//!
//! [`Config::load`] reads the file and the schemas beside it, reports everything that is wrong at
//! once, with line, column and a fix, and compiles a read-only table. It knows nothing of Redis.

mod changes;
mod check;
mod duration;
mod explain;
mod model;
mod names;
mod problem;
mod redact;
mod structure;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

pub use self::changes::{Change, How, Setting, What, changes};
pub use self::explain::{At, Because, Explanation, Held, Receiver, explain};
pub use self::model::json_schema;
pub use self::problem::{ConfigError, Problem, Severity};
pub(crate) use self::problem::{did_you_mean, read_bounded};
pub use self::redact::{Redact, Redacted, STARS};
pub use self::table::{
    AuditSettings, BreakerSettings, HealthSettings, Limits, Route, Routing, Start, StreamSettings,
    SubscriberSettings,
};

use self::model::Model;
use self::yaml::{Node, Yaml};
use crate::schemas::SchemaSet;

const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A configuration that can be used: the routing table and the schemas of its event types.
#[derive(Clone, Debug)]
pub struct Config {
    /// The compiled routing table.
    pub routing: Arc<Routing>,
    /// The schemas of all known event types.
    pub schemas: Arc<SchemaSet>,
    /// What is legal but suspicious.
    pub warnings: Vec<Problem>,
    /// A stable hash of the bytes of `routing.yaml` and of all schema files.
    pub content_hash: u64,
    /// The file that it was loaded from.
    pub path: PathBuf,
    /// The folder of the schemas.
    pub schema_folder: PathBuf,
}

impl Config {
    /// How the fleet names this content: the same for the same bytes of `routing.yaml` and schemas.
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.content_hash)
    }

    /// The namespace that `routing.yaml` names, however wrong the rest of it is.
    ///
    /// # Errors
    /// It cannot be told from the file.
    pub fn namespace_of(path: &Path) -> Result<Option<String>, ConfigError> {
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(only)?;
        let tree = Node::parse(path, as_text(path, &bytes)?).map_err(only)?;
        let named = tree.get(&["namespace"]).map(|node| node.value.clone());
        Ok(match named {
            Some(Yaml::Scalar(serde_json::Value::String(name))) => Some(name),
            _ => None,
        })
    }

    /// Loads `routing.yaml` and the schemas that it names, relative to its own folder.
    ///
    /// # Errors
    /// Every problem of all the files, in a stable order.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(only)?;
        let mut tree = Node::parse(path, as_text(path, &bytes)?).map_err(only)?;
        let Yaml::Map(_) = tree.value else {
            return Err(only(not_a_map(path, &tree)));
        };
        let found = structure::check(path, &mut tree);
        let mut problems = found.problems;
        let model: Model = serde_json::from_value(tree.to_json()).map_err(|error| {
            // The schema and the model are of the same types, so this is a gap between the two.
            let message = format!("the file cannot be read: {error}");
            problems.push(Problem::error(path, message, "report this as a bug"));
            ConfigError {
                problems: std::mem::take(&mut problems),
            }
        })?;
        let mut in_schemas = Vec::new();
        let schemas = match load_schemas(path, &tree, &model) {
            Ok(schemas) => Some(Arc::new(schemas)),
            Err(more) => {
                in_schemas = more;
                None
            }
        };
        let (checked, more) = check::check(check::Input {
            file: path,
            tree: &tree,
            model: &model,
            schemas: schemas.as_deref(),
            broken: &found.broken,
        });
        problems.extend(more);
        problems.extend(in_schemas);
        problems.sort_by(|a, b| {
            // Our own file first; schema files by name.
            let key = |p: &Problem| (p.file != path, p.file.clone(), p.line, p.column, p.severity);
            key(a).cmp(&key(b))
        });
        match &schemas {
            Some(schemas) if problems.iter().all(|p| p.severity == Severity::Warning) => {
                let mut hash = Xxh3::new();
                hash.update(&schemas.content_hash().to_le_bytes());
                hash.update(&bytes);
                Ok(Config {
                    routing: Arc::new(Routing::compile(&model, &checked, schemas)),
                    schemas: Arc::clone(schemas),
                    warnings: problems,
                    content_hash: hash.digest(),
                    schema_folder: schema_folder(path, &model),
                    path: path.to_owned(),
                })
            }
            _ => Err(ConfigError { problems }),
        }
    }
}

fn only(problem: Problem) -> ConfigError {
    ConfigError {
        problems: vec![problem],
    }
}

fn as_text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        let fix = "save the file as UTF-8";
        only(Problem::error(path, "the file is not UTF-8", fix).at(line, 0))
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn not_a_map(path: &Path, tree: &Node) -> Problem {
    let message = match &tree.value {
        Yaml::Scalar(serde_json::Value::Null) => "the file is empty",
        _ => "the file is not a map of fields",
    };
    let fix = "start with `version: 1`, `streams:` and `routes:`";
    Problem::error(path, message, fix).at(1, 1)
}

fn schema_folder(path: &Path, model: &Model) -> PathBuf {
    path.parent()
        .unwrap_or(Path::new(""))
        .join(model.schemas.as_deref().unwrap_or("schemas"))
}

fn load_schemas(path: &Path, tree: &Node, model: &Model) -> Result<SchemaSet, Vec<Problem>> {
    let folder = schema_folder(path, model);
    if folder.is_dir() {
        return SchemaSet::load(&folder);
    }
    let place = tree.place_of(&["schemas"]);
    let message = format!("there is no schema folder {}", folder.display());
    let fix = "create it, or let `schemas:` name the folder of <EventType>.v<N>.json files, \
               relative to this file";
    Err(vec![
        Problem::error(path, message, fix).at(place.line, place.column),
    ])
}
