//! [`RunningServer`]: what only a server knows or can do, the commands have from it, by its admin API.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::CliError;
use super::health::{client, local_url};
use crate::admin::access;
use crate::settings::Settings;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The server that runs with some settings on this machine.
pub(super) struct RunningServer {
    api: Url,
    token: String,
    /// Where that is from, in words.
    token_from: String,
    client: Client,
}

impl RunningServer {
    pub(super) fn of(settings: &Settings) -> Result<Self, CliError> {
        let address = settings.listen.admin.as_ref().ok_or_else(|| {
            CliError::Usage("listen.admin is off: the server cannot be asked".to_owned())
        })?;
        let url = format!("{}/api/v1/", local_url("http", address));
        let token = access::token(settings).map_err(|error| CliError::failed(&error))?;
        Ok(Self {
            api: Url::parse(&url).map_err(|error| CliError::failed(&error))?,
            token: token.expose_secret().to_owned(),
            token_from: match settings.admin.token {
                Some(_) => "admin.token".to_owned(),
                None => access::token_file(settings).display().to_string(),
            },
            client: client(TIMEOUT)?,
        })
    }

    /// The answer's JSON; what it says if it is an error.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: impl IntoIterator<Item = (&str, String)>,
    ) -> Result<Value, CliError> {
        let mut url = self.api.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(path);
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, &value);
        }
        let address = self.api.origin().ascii_serialization();
        let failed = |why: &dyn std::fmt::Display| CliError::Failed(format!("{address}: {why}"));
        let request = self.client.request(method, url).bearer_auth(&self.token);
        let answer = request.send().await.map_err(|_| {
            failed(&"no answer: the server does not run, or has another listen.admin")
        })?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(failed(&format_args!(
                "the server refuses the token of {}: it has the one that it was started with; use that, or restart the server",
                self.token_from
            )));
        }
        let body = answer
            .bytes()
            .await
            .map_err(|error| failed(&error.without_url()))?;
        let body: Value = serde_json::from_slice(&body)
            .map_err(|_| failed(&"the answer is not JSON: another program listens there"))?;
        match body["detail"].as_str() {
            _ if status.is_success() => Ok(body),
            Some(detail) => Err(failed(&detail)),
            None => Err(failed(&"the server refuses it and does not say why")),
        }
    }
}
