//! A Firebase service account: the key file, as Firebase hands it out, and signing with its key.
//!
//! Parsed once, at start. `Debug` shows whose it is and nothing of the key; no error text quotes the file.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::PushError;
use crate::named_file;

/// Who we are for Google, and the key that proves it.
pub(super) struct ServiceAccount {
    project: String,
    email: String,
    key_id: Option<String>,
    token_uri: Url,
    key: RsaKeyPair,
}

impl ServiceAccount {
    /// Reads the key file.
    ///
    /// # Errors
    /// If it cannot be read, or is not the key file of a service account.
    pub(super) fn read(path: &Path) -> Result<Self, PushError> {
        let shown = path.display();
        let wrong = |why: String| PushError::new(format!("push.fcm_key: {shown}{why}"));
        let cannot = |error: std::io::Error| wrong(format!(": {error}"));
        let text = named_file::read_text(path).map_err(cannot)?;
        Self::parse(&text).map_err(wrong)
    }

    /// What is wrong continues a sentence that begins with the file's name.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // The parser's words may hold a part of the key.
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!(" is not a JSON object (line {})", error.line()))?;
        let field = |name: &str| {
            let text = fields.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).ok_or_else(|| {
                format!(
                    " has no {name}: is it a service account's key? In the Firebase console: project \
                     settings, service accounts, generate new private key"
                )
            })
        };
        let project = field("project_id")?;
        let email = field("client_email")?;
        let private_key = field("private_key")?;
        let token_uri = field("token_uri")?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(private_key.as_bytes())
            .map_err(|_| ": its private_key is not PEM (BEGIN PRIVATE KEY)".to_owned())?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
            .map_err(|_| ": its private_key is not an RSA key of 2048 bits or more".to_owned())?;
        let token_uri = Url::parse(token_uri).ok();
        let token_uri = token_uri
            .filter(|url| matches!(url.scheme(), "https" | "http"))
            .ok_or_else(|| ": its token_uri is not an address (https://…)".to_owned())?;
        Ok(Self {
            project: project.to_owned(),
            email: email.to_owned(),
            key_id: field("private_key_id").ok().map(str::to_owned),
            token_uri,
            key,
        })
    }

    /// The Firebase project.
    pub(super) fn project(&self) -> &str {
        &self.project
    }

    /// Where access tokens are handed out.
    pub(super) fn token_uri(&self) -> &Url {
        &self.token_uri
    }

    /// Our request for an access token, signed: a JWT (RFC 7523) that holds for an hour from `now`, which is
    /// in seconds since the UNIX epoch.
    ///
    /// `None` if the key cannot sign, which a key that was read can.
    pub(super) fn assertion(&self, scope: &str, now: u64) -> Option<String> {
        const VALID_SECS: u64 = 3600;
        let mut header = serde_json::json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = serde_json::json!({
            "iss": self.email,
            "scope": scope,
            "aud": self.token_uri.as_str(),
            "iat": now,
            "exp": now + VALID_SECS,
        });
        let mut text = String::new();
        URL_SAFE_NO_PAD.encode_string(header.to_string(), &mut text);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                text.as_bytes(),
                &mut signature,
            )
            .ok()?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut text);
        Some(text)
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("project", &self.project)
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}
