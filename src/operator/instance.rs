//! `streamfleet instance`: becomes the worker that an instance of the systemd template names. The unit
//! knows `inventory@1`; routing.yaml knows which subscriber and which program that is.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use super::{CommandError, child};
use crate::process::args::ConfigArgs;
use crate::process::exit::Exit;

/// Become the worker that serves a subscriber.
///
/// Its program is the one of `streamfleet dev`: the `worker` of the subscriber in routing.yaml, or
/// x-worker for x-service. It is looked for beside this program, in ../lib/streamfleet from there,
/// and in /usr/local/lib/streamfleet.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    file: ConfigArgs,
    /// A subscriber (inventory-service), or its name without -service (inventory); `@` and a number
    /// may follow, which tell its workers apart.
    instance: String,
    /// What the worker is told.
    #[arg(last = true, value_name = "ARGUMENT")]
    args: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Result<Exit, CommandError> {
    let config = args.file.load()?;
    let service = service(&args.instance);
    let full = format!("{service}-service");
    let subscriber = [service, &full]
        .into_iter()
        .find_map(|name| config.routing.served(name));
    let Some(subscriber) = subscriber else {
        eprintln!(
            "streamfleet: {}: neither a route nor `retired` names {service} or {full}: add it to a route, or name the instance after a subscriber",
            args.file.path.display()
        );
        return Ok(Exit::BadConfig);
    };
    let program = match child::programs(&[&subscriber.worker]) {
        Ok(found) => found.into_iter().next().unwrap_or_default(),
        Err(missing) => {
            eprintln!(
                "streamfleet: {missing}. Install the program that serves {}, or let `worker:` in routing.yaml name another",
                subscriber.name
            );
            return Ok(Exit::BadConfig);
        }
    };
    let cause = std::process::Command::new(&program).args(&args.args).exec();
    Err(CommandError::File {
        path: program,
        cause,
    })
}

/// The service that an instance is of: `inventory@1` is one of `inventory`.
fn service(instance: &str) -> &str {
    instance
        .split_once('@')
        .map_or(instance, |(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_service_and_what_tells_it_apart() {
        for (instance, named) in [
            ("inventory@1", "inventory"),
            ("inventory", "inventory"),
            ("a-b@c@2", "a-b"),
        ] {
            assert_eq!(service(instance), named);
        }
    }
}
