//! A node whose machine loses its power at any moment: what it had answered is there afterwards.

use std::path::Path;
use std::sync::{Arc, Mutex};

use verger_proto::Event;

use crate::ledger::file::FileLedger;
use crate::raft::durable::sled::SledLog;
use crate::raft::network::memory::MemoryNetwork;
use crate::raft::node::{Node, NodeOptions};
use crate::raft::testing::{Cluster, in_virtual_time, proposal};

/// The data folder as the disk has it: of the raft log what was synced, of the ledger what a snapshot speaks for and any of the rest.
fn image(data: &Path, synced: &[u8], torn: u64) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    let to = image.path();
    for folder in ["log/blobs", "ledger"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
    }
    for file in ["identity", "snapshot", "log.mark", "log/conf"] {
        if data.join(file).exists() {
            std::fs::copy(data.join(file), to.join(file)).unwrap();
        }
    }
    std::fs::write(to.join("log/db"), synced).unwrap();
    let known =
        crate::raft::snapshot::load(data, verger_proto::level::LEVEL).unwrap().map_or(0, |(_, head)| head.bytes);
    let ledger = std::fs::read(data.join("ledger/ledger")).unwrap();
    let kept = known + torn % (ledger.len() as u64 - known + 1);
    std::fs::write(to.join("ledger/ledger"), &ledger[..usize::try_from(kept).unwrap()]).unwrap();
    image
}

/// The ledger of a node that was opened on the image, once it leads again.
async fn reopened(options: NodeOptions, image: &Path) -> (Vec<u8>, Vec<Event>) {
    let network = MemoryNetwork::new(1);
    let options = NodeOptions { data_dir: image.to_owned(), transport: Arc::new(network), ..options };
    let node = Node::open(options).await.unwrap();
    let again = loop {
        match node.submit(proposal(1, 50)).await {
            Ok(events) => break events,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    FileLedger::read(&image.join("ledger"), |_| Ok(())).unwrap();
    let ledger = std::fs::read(image.join("ledger/ledger")).unwrap();
    node.shutdown().await;
    (ledger, again)
}

#[test]
fn a_node_comes_back_from_a_power_loss_with_all_that_it_answered() {
    in_virtual_time(1, async {
        let mut cluster = Cluster::new(1).await;
        let first = cluster.submit(proposal(1, 50)).await;
        cluster.stop(1).await;
        let (data, synced) =
            (cluster.data(1), Arc::new(Mutex::new(std::fs::read(cluster.data(1).join("log/db")).unwrap())));
        let (folder, kept) = (data.clone(), synced.clone());
        let sync = move |file: &std::fs::File, folder: &Path| {
            file.sync_data()?;
            *kept.lock().unwrap() = std::fs::read(folder.join("db"))?;
            Ok(())
        };
        let log = move |_: &_| Ok(Arc::new(SledLog::open_with(&folder, Box::new(sync))?) as Arc<_>);
        cluster.join(1, Node::open_with(cluster.options(1), log).await.unwrap());
        for number in 2..=120 {
            cluster.submit(proposal(number, 50)).await;
            if number % 6 == 0 {
                let answered = cluster.ledger(1);
                let bytes = synced.lock().unwrap().clone();
                let image = image(&data, &bytes, number * 7_919);
                let (ledger, again) = reopened(cluster.options(1), image.path()).await;
                assert!(ledger == answered, "after {number}");
                assert_eq!(again, first, "what was answered first is answered again");
            }
        }
        assert!(data.join("snapshot").exists());
        cluster.stop_all().await;
    });
}
