//! The OpenAPI description of the API, made of its routes.
//!
//! Routes say what is theirs; what is true of all of them is added here: who may ask, and how errors look.

use std::sync::Arc;

use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{HttpMethod, Operation, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required,
    ResponseBuilder, SecurityRequirement,
};

use utoipa::{PartialSchema, ToSchema};

use super::extract::{Asked, Nothing};
use crate::admin::problem::Problem;

/// The description as JSON, made once.
#[derive(Clone)]
pub(super) struct Text(Arc<str>);

impl Text {
    pub(super) fn new(description: &OpenApi) -> Self {
        let text = description.to_json().expect("a description is plain data");
        Self(text.into())
    }
}

/// What it is about.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("jam-mqtt admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Accounts, friendships, devices and mailboxes of a jam-mqtt server. Every error is `application/problem+json` \
             (RFC 9457). PUT and DELETE may be repeated: `changed` says whether anything has.",
        ))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()));
    OpenApiBuilder::new().info(info.build()).build()
}

/// Adds what is true of all routes.
pub(super) fn complete(mut description: OpenApi) -> OpenApi {
    let components = description.components.get_or_insert_default();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "`admin.token`, or the token in the file `admin-token` of the data directory. `admin.read_token` may GET.",
        ));
    let scheme = SecurityScheme::Http(scheme.build());
    components
        .security_schemes
        .insert("bearer".to_owned(), scheme.into());
    for item in description.paths.paths.values_mut() {
        for method in [HttpMethod::Get, HttpMethod::Put, HttpMethod::Delete] {
            let operation = match method {
                HttpMethod::Get => &mut item.get,
                HttpMethod::Put => &mut item.put,
                _ => &mut item.delete,
            };
            if let Some(operation) = operation {
                add_errors(operation, &method);
            }
        }
    }
    let problem = (Problem::name().into_owned(), Problem::schema());
    components.schemas.extend([problem]);
    let servers = description.servers.get_or_insert_default();
    servers.push(utoipa::openapi::Server::new("/api/v1"));
    let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
    description.security = Some(vec![bearer]);
    description
}

fn add_errors(operation: &mut Operation, method: &HttpMethod) {
    let mut errors = vec![
        ("401", "No token, or one that is not known"),
        ("422", "An unknown query key or field, or a wrong value"),
        ("503", "A database or the disk does not answer"),
    ];
    if *method != HttpMethod::Get {
        errors.push(("403", "The token may look, and change nothing"));
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        if parameter.parameter_in == ParameterIn::Header {
            parameter.required = Required::False;
        }
        if parameter.name == "after" {
            errors.push(("404", "No page begins after the cursor"));
        }
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::False);
        errors.push(("413", "The body has more than 64 KiB"));
        errors.push(("415", "The body is not JSON"));
    }
    let responses = &mut operation.responses.responses;
    for (status, what) in errors {
        let response = ResponseBuilder::new().description(what).build();
        let entry = responses.entry(status.to_owned());
        entry.or_insert_with(|| response.into());
    }
    for (status, response) in responses {
        if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response) {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
            response.content.clear();
            response.content.insert(
                "application/problem+json".to_owned(),
                content.build().into(),
            );
        }
    }
}

/// This description
///
/// OpenAPI 3.1, for tools that make clients and documentation of it.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(super) async fn show(
    Extension(Text(text)): Extension<Text>,
    Asked(Nothing {}): Asked<Nothing>,
) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        text.to_string(),
    )
}
