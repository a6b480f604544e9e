//! stub
use super::summary::{Holds, Pen, Role};
use verger_kopia::content::ContentId;
use verger_kopia::error::Result;
use verger_kopia::object::ObjectId;
#[derive(Default)]
pub struct Unpacker;
pub fn classify(plain: &[u8], pen: &mut Pen<'_>, unpacker: &mut Unpacker) -> Option<Holds> {
    unreachable!()
}
pub fn write_as(holds: Holds, id: ContentId, plain: &[u8], pen: &mut Pen<'_>) -> Result<u32> {
    unreachable!()
}
pub fn parse_table(plain: &[u8], visit: &mut dyn FnMut(&ObjectId) -> Result<()>) -> Result<()> {
    unreachable!()
}
pub struct Push<F>(F);
impl<F: FnMut(Role, &ObjectId, &str) -> Result<()>> Push<F> {
    pub fn new(f: F) -> Self {
        Self(f)
    }
    pub fn feed(&mut self, b: &[u8]) -> Result<()> {
        unreachable!()
    }
    pub fn finish(self) -> Result<()> {
        unreachable!()
    }
}
