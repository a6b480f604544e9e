//! stub
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &super::Context, _: &Args) -> verger_kopia::Result<crate::exit::Exit> {
    Ok(crate::exit::Exit::Done)
}
