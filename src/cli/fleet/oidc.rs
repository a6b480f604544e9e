//! Which identity providers are believed, and what their users may do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use verger_coordinator::auth::oidc::{Grant, Holds, Provider, TenantOf, is_safe};
use verger_coordinator::auth::{Scope, Tenant};
use verger_kopia::{Error, ErrorKind, Result};

use crate::up::oidc::Believed;

/// What is the claim that says whose a token is, if nobody says another.
const SUBJECT_DEFAULT: &str = "sub";

/// Identity providers (OpenID Connect). With several, `NAME=` before a value is for one of them; without, for each that has none of its
/// own.
#[derive(Debug, Default, clap::Args)]
pub(super) struct OidcArgs {
    /// Believe tokens of this OpenID Connect provider beside Verger's own; several with commas, each with a name for the other flags
    #[arg(
        long,
        value_name = "[NAME=]URL",
        env = "VERGER_OIDC_ISSUER",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_issuer: Vec<String>,
    /// Whom its tokens must be for (`aud`)
    #[arg(
        long,
        value_name = "[NAME=]TEXT",
        env = "VERGER_OIDC_AUDIENCE",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_audience: Vec<String>,
    /// Where its keys are [default: where it says itself, /.well-known/openid-configuration]
    #[arg(
        long,
        value_name = "[NAME=]URL",
        env = "VERGER_OIDC_JWKS_URL",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_jwks_url: Vec<String>,
    /// Authorities that its certificate must come from (PEM) [default: those of this machine]
    #[arg(
        long,
        value_name = "[NAME=]FILE",
        env = "VERGER_OIDC_CA_FILE",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_ca_file: Vec<String>,
    /// The claim that names who acts; nobody but the provider may be able to choose it [default: sub]
    #[arg(
        long,
        value_name = "[NAME=]CLAIM",
        env = "VERGER_OIDC_SUBJECT_CLAIM",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_subject_claim: Vec<String>,
    /// The tenant of all its users
    #[arg(
        long,
        value_name = "[NAME=]TENANT",
        env = "VERGER_OIDC_TENANT",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_tenant: Vec<String>,
    /// The claim that holds a user's tenant
    #[arg(
        long,
        value_name = "[NAME=]CLAIM",
        env = "VERGER_OIDC_TENANT_CLAIM",
        value_delimiter = ',',
        help_heading = "Identity providers"
    )]
    oidc_tenant_claim: Vec<String>,
    /// Whoever has this value in this claim reaches all tenants, and the fleet's own; several with `;` between them
    #[arg(
        long,
        value_name = "[NAME=]CLAIM=VALUE",
        env = "VERGER_OIDC_ALL_TENANTS",
        value_delimiter = ';',
        help_heading = "Identity providers"
    )]
    oidc_all_tenants: Vec<String>,
    /// Whoever has this value in this claim may do this (read, operate, approve, admin); nobody else may do anything. Several with `;`
    /// between them, such as `read=groups=staff;admin=groups=backup`
    #[arg(
        long,
        value_name = "[NAME=]SCOPE=CLAIM=VALUE",
        env = "VERGER_OIDC_SCOPE",
        value_delimiter = ';',
        help_heading = "Identity providers"
    )]
    oidc_scope: Vec<String>,
}

impl OidcArgs {
    /// The providers that are believed.
    ///
    /// # Errors
    /// `Usage` for one that could not be believed, or whose tokens would be worth nothing.
    pub(super) fn resolve(&self) -> Result<Vec<Believed>> {
        let others = [
            &self.oidc_audience,
            &self.oidc_jwks_url,
            &self.oidc_ca_file,
            &self.oidc_subject_claim,
            &self.oidc_tenant,
            &self.oidc_tenant_claim,
            &self.oidc_all_tenants,
            &self.oidc_scope,
        ];
        if self.oidc_issuer.is_empty() && others.iter().any(|values| !values.is_empty()) {
            return Err(refused("it is not said which identity provider is meant", "Give --oidc-issuer, too"));
        }
        let issuers: Vec<(&str, &str)> = self.oidc_issuer.iter().map(|text| named(text.trim())).collect();
        let names: BTreeSet<&str> = issuers.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        let urls: BTreeSet<&str> = issuers.iter().map(|(_, url)| *url).collect();
        if urls.len() < issuers.len() || names.len() < issuers.iter().filter(|(name, _)| !name.is_empty()).count() {
            return Err(refused("--oidc-issuer has one twice", "Give each provider once, and a name of its own"));
        }
        if let Some(name) = names.iter().find(|name| name.parse::<Scope>().is_ok()) {
            return Err(refused(&format!("a provider cannot be named {name}"), "That is a scope: choose another name"));
        }
        issuers.iter().map(|(name, url)| self.one(&names, name, url)).collect()
    }

    fn one(&self, names: &BTreeSet<&str>, name: &str, issuer: &str) -> Result<Believed> {
        let all = |flag, values| of(flag, values, names, name);
        let one = |flag, values| single(flag, of(flag, values, names, name));
        let tenant = one("--oidc-tenant", &self.oidc_tenant)?;
        let tenant = match (tenant, one("--oidc-tenant-claim", &self.oidc_tenant_claim)?) {
            (Some(_), Some(_)) => {
                let step = format!("{issuer} has both a tenant for all its users and a claim that holds it");
                return Err(refused(&step, "Give --oidc-tenant or --oidc-tenant-claim, not both"));
            }
            (Some(tenant), None) => TenantOf::Fixed(
                Tenant::new(tenant).map_err(|bad| refused(&format!("--oidc-tenant {tenant}: {bad}"), "Correct it"))?,
            ),
            (None, Some(claim)) => TenantOf::Claim(claim.to_owned()),
            (None, None) => TenantOf::Nobody,
        };
        let everyone = all("--oidc-all-tenants", &self.oidc_all_tenants).map(|(flag, text)| holds(flag, text, text));
        let grants = all("--oidc-scope", &self.oidc_scope).map(|(flag, text)| grant(flag, text));
        let provider = Provider {
            issuer: issuer.to_owned(),
            audience: one("--oidc-audience", &self.oidc_audience)?.unwrap_or_default().to_owned(),
            subject: one("--oidc-subject-claim", &self.oidc_subject_claim)?.unwrap_or(SUBJECT_DEFAULT).to_owned(),
            tenant,
            everyone: everyone.collect::<Result<_>>()?,
            grants: grants.collect::<Result<_>>()?,
        };
        let fix = "Give --oidc-audience, --oidc-scope, and --oidc-tenant, --oidc-tenant-claim or --oidc-all-tenants; docs/security.md";
        provider.check().map_err(|why| refused(&why, fix))?;
        let keys_url = one("--oidc-jwks-url", &self.oidc_jwks_url)?.map(str::to_owned);
        if let Some(url) = keys_url.as_ref().filter(|url| !is_safe(url)) {
            let step = format!("--oidc-jwks-url {url} is neither an https:// address nor one of this machine");
            return Err(refused(&step, "Whoever is in between could exchange the keys: give an https:// address"));
        }
        Ok(Believed { provider, keys_url, ca_file: one("--oidc-ca-file", &self.oidc_ca_file)?.map(PathBuf::from) })
    }
}

fn refused(step: &str, fix: &str) -> Error {
    Error::new(ErrorKind::Usage, step).with_fix(fix)
}

/// `work=https://...`, or an address alone.
fn named(text: &str) -> (&str, &str) {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.split_once('=').filter(|(name, _)| is_name(name)).unwrap_or(("", text))
}

/// What a flag says of one provider: what is for it by name; else what is for nobody by name.
fn of<'a>(
    flag: &'static str,
    values: &'a [String],
    names: &BTreeSet<&str>,
    name: &str,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let parts: Vec<(&str, &str)> = values
        .iter()
        .map(|text| text.split_once('=').filter(|(of, _)| names.contains(of)).unwrap_or(("", text.as_str())))
        .collect();
    let wanted = if parts.iter().any(|(of, _)| *of == name) { name.to_owned() } else { String::new() };
    parts.into_iter().filter(move |(of, _)| *of == wanted).map(move |(_, value)| (flag, value.trim()))
}

fn single<'a>(flag: &str, mut values: impl Iterator<Item = (&'static str, &'a str)>) -> Result<Option<&'a str>> {
    let first = values.next().map(|(_, value)| value);
    match values.next() {
        Some(_) => Err(refused(&format!("{flag} is given twice for one provider"), "Leave one out")),
        None => Ok(first),
    }
}

/// `groups=staff`.
fn holds(flag: &str, whole: &str, text: &str) -> Result<Holds> {
    match text.split_once('=') {
        Some((claim, value)) if !claim.is_empty() && !value.is_empty() => {
            Ok(Holds { claim: claim.to_owned(), value: value.to_owned() })
        }
        _ => Err(refused(&format!("{flag} {whole}: there is no claim with a value in it"), "Such as groups=staff")),
    }
}

/// `read=groups=staff`.
fn grant(flag: &str, text: &str) -> Result<Grant> {
    let bad = |why: &str| refused(&format!("{flag} {text}: {why}"), "Such as read=groups=staff");
    let (scope, rest) = text.split_once('=').ok_or_else(|| bad("there is no scope in it"))?;
    let scope: Scope = scope.trim().parse().map_err(|why: String| bad(&why))?;
    Ok(Grant { scope, to: holds(flag, text, rest)? })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        oidc: OidcArgs,
    }

    fn resolve(flags: &[&str]) -> Result<Vec<Believed>> {
        Line::parse_from(["verger"].iter().chain(flags)).oidc.resolve()
    }

    #[test]
    fn one_provider_needs_no_name() {
        assert!(resolve(&[]).unwrap().is_empty());
        let all = resolve(&[
            "--oidc-issuer=https://id.example/realms/a",
            "--oidc-audience=verger",
            "--oidc-tenant-claim=team",
            "--oidc-scope=read=groups=staff;admin=https://id.example/groups=cn=backup,ou=x",
            "--oidc-all-tenants=groups=owners",
        ]);
        let one = &all.unwrap()[0];
        assert_eq!((one.provider.subject.as_str(), &one.keys_url, &one.ca_file), ("sub", &None, &None));
        assert_eq!(one.provider.tenant, TenantOf::Claim("team".to_owned()));
        let grants: Vec<_> = one.provider.grants.iter().map(|g| (g.scope, &*g.to.claim, &*g.to.value)).collect();
        let admin = (Scope::Admin, "https://id.example/groups", "cn=backup,ou=x");
        assert_eq!(grants, [(Scope::Read, "groups", "staff"), admin]);
    }

    #[test]
    fn of_several_each_has_its_own_or_what_is_for_all() {
        let all = resolve(&[
            "--oidc-issuer=office=https://id.example,ci=https://ci.example",
            "--oidc-audience=verger,ci=https://verger.example",
            "--oidc-tenant=office=attic,ci=cellar",
            "--oidc-scope=read=groups=staff;ci=operate=repository=backup",
        ]);
        let all = all.unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|one| (&*one.provider.audience, one.provider.grants.len(), one.provider.grants[0].scope))
            .collect();
        assert_eq!(shown, [("verger", 1, Scope::Read), ("https://verger.example", 1, Scope::Operate)]);
        assert_eq!(all[1].provider.tenant, TenantOf::Fixed(Tenant::new("cellar").unwrap()));
    }

    #[test]
    fn what_could_not_be_believed_or_is_worth_nothing_is_refused() {
        let good = [
            "--oidc-issuer=https://id.example",
            "--oidc-audience=verger",
            "--oidc-tenant=attic",
            "--oidc-scope=read=groups=staff",
        ];
        assert!(resolve(&good).is_ok());
        for (at, instead, says) in [
            (0, "--oidc-issuer=http://id.example", "https://"),
            (0, "--oidc-issuer=https://user@id.example", "https://"),
            (0, "--oidc-issuer=https://id.example?x=1", "? nor #"),
            (0, "--oidc-issuer=read=https://id.example", "cannot be named"),
            (0, "--oidc-issuer=a=https://id.example,b=https://id.example", "twice"),
            (1, "--oidc-audience=", "for whom"),
            (1, "--oidc-audience=a,b", "twice"),
            (2, "--oidc-tenant=Not One", "tenant"),
            (2, "--oidc-jwks-url=http://id.example/keys", "https://"),
            (2, "--oidc-subject-claim=sub", "reaches anything"),
            (3, "--oidc-scope=write=groups=staff", "scope"),
            (3, "--oidc-scope=read=groups", "no claim"),
            (3, "--oidc-subject-claim=sub", "may do anything"),
        ] {
            let mut flags = good;
            flags[at] = instead;
            let error = resolve(&flags).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{instead}");
            assert!(error.to_string().contains(says) && error.fix().is_some(), "{instead}: {error}");
        }
        assert!(resolve(&["--oidc-tenant-claim=team"].iter().chain(&good).copied().collect::<Vec<_>>()).is_err());
        let of_nobody = resolve(&["--oidc-audience=verger"]).unwrap_err();
        assert!(of_nobody.to_string().contains("which identity provider"), "{of_nobody}");
    }
}
