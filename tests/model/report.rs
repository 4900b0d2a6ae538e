//! What was explored and found, for people (stdout) and for programs
//! (`target/reliability/model.json`).

use std::path::Path;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

static REPORT: Mutex<Option<Map<String, Value>>> = Mutex::new(None);

/// Adds to the report, and writes it: each test has its part.
pub(crate) fn add(parts: Value) {
    let mut report = REPORT.lock().unwrap();
    let report = report.get_or_insert_with(Map::new);
    if let Value::Object(parts) = parts {
        report.extend(parts);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("reliability");
    std::fs::create_dir_all(&folder).unwrap();
    let text = serde_json::to_string_pretty(&json!(report)).unwrap();
    std::fs::write(folder.join("model.json"), text + "\n").unwrap();
}
