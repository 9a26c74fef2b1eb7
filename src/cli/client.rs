//! The client of the admin API, and what every command that asks it has in common.
//!
//! Owns: asking, and the exit code 2 of a command that could not tell. May use: reqwest, `admin::view`. Never:
//! looks for a proxy, follows a redirect or leaves the address that it was given.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::view::Problem;
use crate::escape::{escaped, escaped_as};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Whom to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Server {
    /// The admin address of the control plane.
    #[arg(long, env = "CHANCERY_ADMIN_ADDRESS", default_value = crate::config::ADMIN_ADDRESS, value_name = "HOST:PORT")]
    pub admin_address: String,
}

/// Whom to ask, and how to show the answer.
#[derive(Debug, Clone, clap::Args)]
pub struct Ask {
    /// Whom to ask.
    #[command(flatten)]
    pub server: Server,
    /// How to show the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// The columns that matter, cut to size.
    Table,
    /// Every column, nothing cut.
    Wide,
    /// The API's answer.
    Json,
    /// The API's answer as YAML.
    Yaml,
}

// === impl Ask ===

impl Ask {
    /// Asks for `path`, prints the answer and ends as `verdict` says (0 or 1), or with 2 if nobody can tell.
    pub async fn show<T: Serialize + DeserializeOwned>(
        &self,
        path: &str,
        table: impl FnOnce(&T, bool) -> String,
        verdict: impl FnOnce(&T) -> bool,
    ) -> anyhow::Result<ExitCode> {
        self.server.show(path, |answer: &T| self.output.write(answer, table), verdict).await
    }
}

// === impl Output ===

impl Output {
    /// An answer in this form.
    pub fn write<T: Serialize>(self, answer: &T, table: impl FnOnce(&T, bool) -> String) -> anyhow::Result<String> {
        match self {
            Self::Table => Ok(table(answer, false)),
            Self::Wide => Ok(table(answer, true)),
            Self::Json => json(answer),
            Self::Yaml => yaml(answer),
        }
    }
}

// === impl Server ===

impl Server {
    /// Asks for `path`, prints what `write` makes of the answer and ends as `verdict` says (0 or 1), or with 2 if nobody
    /// can tell.
    pub async fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        write: impl FnOnce(&T) -> anyhow::Result<String>,
        verdict: impl FnOnce(&T) -> bool,
    ) -> anyhow::Result<ExitCode> {
        let answer: T = match self.get(path).await {
            Ok(answer) => answer,
            Err(error) => {
                writeln!(std::io::stderr(), "error: {}", escaped(&format!("{error:#}")))?;
                return Ok(ExitCode::from(2));
            }
        };
        std::io::stdout().write_all(write(&answer)?.as_bytes()).context("cannot print the answer")?;
        Ok(if verdict(&answer) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let address = &self.admin_address;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .context("cannot make an HTTP client")?;
        let response = client.get(format!("http://{address}{path}")).send().await.map_err(|error| {
            if error.is_connect() {
                anyhow!(
                    "nobody answers at {address}: start the control plane with `chancery serve`, \
                     or say where it is with --admin-address or CHANCERY_ADMIN_ADDRESS"
                )
            } else {
                anyhow!(error).context(format!("cannot ask {address}"))
            }
        })?;
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("{address} broke off its answer"))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .with_context(|| format!("{address} gave an answer that this version does not know"));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => bail!("{address} refused: {}", problem.detail),
            Err(_) => bail!("{address} answered {status}: is that the admin address of a control plane?"),
        }
    }
}

/// JSON in which characters that steer a terminal are escaped; all of them stand within strings.
pub(super) fn json<T: Serialize>(answer: &T) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(answer).context("the answer cannot be written as JSON")?;
    Ok(escaped_as(&text, |c| format!("\\u{:04x}", u32::from(c))) + "\n")
}

/// The same as YAML, of which JSON is a part: a text that needs escapes is written in that way.
fn yaml<T: Serialize>(answer: &T) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(answer).context("the answer cannot be written as YAML")?;
    if text.lines().all(|line| matches!(escaped(line), std::borrow::Cow::Borrowed(_))) {
        Ok(text)
    } else {
        json(answer)
    }
}

#[cfg(test)]
mod tests;
