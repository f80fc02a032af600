//! `starling get`, `put` and `delete`, through the client library.

use std::io::Read as _;
use std::process::ExitCode;

use serde::Serialize;
use starling_client::{Bucket, CausalContext, WireError};

use crate::args::{BucketArgs, DeleteArgs, GetArgs, PutArgs};
use crate::failure::Failure;
use crate::{connect, exit, out};

/// What `get --json` prints.
#[derive(Serialize)]
struct Found {
    siblings: Vec<Text>,
    context: String,
}

/// What `put --json` and `delete --json` print.
#[derive(Serialize)]
struct Written {
    context: String,
}

/// A value: text where it is that, else base64 in an object, which no text can be taken for.
#[derive(Serialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Bytes { base64: String },
}

impl Text {
    fn new(value: &[u8]) -> Self {
        use base64::Engine as _;
        match std::str::from_utf8(value) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => {
                Self::Bytes { base64: base64::engine::general_purpose::STANDARD.encode(value) }
            }
        }
    }
}

/// Reads a key.
pub async fn get(args: &GetArgs) -> Result<ExitCode, Failure> {
    let floor = args.floor.as_deref().map(context).transpose()?;
    let bucket = open(&args.bucket).await?;
    let mut get = bucket.get(args.key.clone()).consistency(args.bucket.consistency);
    if let Some(floor) = &floor {
        get = get.floor(floor);
    }
    let value = get.await?;
    if args.bucket.json {
        let siblings = value.siblings.iter().map(|sibling| Text::new(sibling)).collect();
        out::json(&Found { siblings, context: value.context.to_text() });
        let found = !value.siblings.is_empty();
        return Ok(if found { exit::DONE } else { exit::NOTHING_THERE.into() });
    }
    for sibling in &value.siblings {
        out::raw(sibling);
        out::raw(b"\n");
    }
    match value.siblings.len() {
        0 => {
            out::note(format!("nothing under {:?} in {}", args.key, args.bucket.bucket));
            Ok(exit::NOTHING_THERE.into())
        }
        1 => Ok(exit::DONE),
        count => {
            out::note(format!(
                "{count} siblings, written concurrently; a put with this context replaces them all:\n  {}",
                value.context.to_text()
            ));
            Ok(exit::DONE)
        }
    }
}

/// Stores a value.
pub async fn put(args: &PutArgs) -> Result<ExitCode, Failure> {
    let value = if args.value == "-" { from_stdin()? } else { args.value.clone().into_bytes() };
    let seen = args.context.as_deref().map(context).transpose()?;
    let bucket = open(&args.bucket).await?;
    let level = args.bucket.consistency;
    let context = if args.overwrite {
        bucket.overwrite(args.key.clone(), value).consistency(level).await?
    } else {
        let mut put = bucket.put(args.key.clone(), value).consistency(level);
        if let Some(seen) = &seen {
            put = put.context(seen);
        }
        put.await?
    };
    written(&args.bucket, &context)
}

/// Deletes a key.
pub async fn delete(args: &DeleteArgs) -> Result<ExitCode, Failure> {
    let seen = args.context.as_deref().map(context).transpose()?;
    let bucket = open(&args.bucket).await?;
    let mut delete = bucket.delete(args.key.clone()).consistency(args.bucket.consistency);
    if let Some(seen) = &seen {
        delete = delete.context(seen);
    }
    written(&args.bucket, &delete.await?)
}

/// Prints the context of what is done, which stays done when that fails.
fn written(args: &BucketArgs, context: &CausalContext) -> Result<ExitCode, Failure> {
    let context = context.to_text();
    let text = match args.json {
        true => serde_json::to_string(&Written { context }).expect("plain data is always JSON"),
        false => context,
    };
    out::try_line(text).map_err(|source| Failure::Unprinted { source })?;
    Ok(exit::DONE)
}

async fn open(args: &BucketArgs) -> Result<Bucket, Failure> {
    let client = connect(&args.node).await?;
    match client.bucket(&args.bucket).await {
        Err(error) if matches!(error.wire(), Some(WireError::UnknownKeyspace { .. })) => {
            let keyspaces = client.topology().await?.keyspaces;
            let known = keyspaces.into_iter().map(|keyspace| keyspace.name).collect();
            Err(Failure::NoKeyspace { error, known })
        }
        opened => Ok(opened?),
    }
}

fn context(text: &str) -> Result<CausalContext, Failure> {
    // Where it differs from base64 helps nobody: people copy contexts, and copy them in part.
    let context = CausalContext::from_text(text).ok().filter(|_| !text.is_empty());
    context.ok_or_else(|| Failure::Usage {
        problem: format!("{text:?} is not a context (or only a part of one)"),
        advice: "copy all of what `put` printed, or of the \"context\" of `get --json`".to_owned(),
    })
}

fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    std::io::stdin().read_to_end(&mut value)?;
    Ok(value)
}
