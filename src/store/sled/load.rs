//! Reads everything, row by row. Rows that cannot be decoded are skipped and counted.

use std::sync::mpsc;

use super::Trees;
use super::census::{Counted, Fingerprint};
use crate::store::codec::DecodeError;
use crate::store::schema::{self, meta, tree};
use crate::store::{Armed, Error, FIRST_SEQUENCE, Loaded, Row, ServiceRecord, SkippedRow, records};

/// Rows that go from one thread to the other at once, and how many such parcels may lie between them.
const PARCEL: usize = 256;
const PARCELS_MAX: usize = 16;

/// The same as [`load`], by a thread of its own: what is made of the rows takes half as long as
/// reading them.
pub(super) fn beside(
    trees: &Trees,
    each: &mut dyn FnMut(Row),
) -> Result<(Loaded, Fingerprint), Error> {
    std::thread::scope(|scope| {
        let (rows, parcels) = mpsc::sync_channel(PARCELS_MAX);
        let reader = scope.spawn(move || {
            let mut parcel = Vec::with_capacity(PARCEL);
            // Nobody takes them any more only when `each` has panicked.
            let loaded = load(trees, &mut |row| {
                parcel.push(row);
                if parcel.len() == PARCEL {
                    let full = std::mem::replace(&mut parcel, Vec::with_capacity(PARCEL));
                    drop(rows.send(full));
                }
            });
            drop(rows.send(parcel));
            loaded
        });
        parcels.into_iter().flatten().for_each(each);
        reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// All rows, and the fingerprint of those that count.
fn load(trees: &Trees, each: &mut dyn FnMut(Row)) -> Result<(Loaded, Fingerprint), Error> {
    let mut loaded = Loaded::default();
    let mut sum = Fingerprint::default();
    if let Some(bytes) = trees.meta.get(meta::MARK)? {
        match records::decode_mark(&bytes) {
            Ok(mark) => loaded.mark = Some(mark),
            Err(error) => loaded.skip(tree::META, meta::MARK.as_bytes(), &error),
        }
    }
    if let Some(bytes) = trees.meta.get(meta::POLICY)? {
        match records::decode_policy(&bytes) {
            Ok(policy) => loaded.policy = Some(policy),
            Err(error) => loaded.skip(tree::META, meta::POLICY.as_bytes(), &error),
        }
    }
    for row in trees.apps.iter() {
        let (key, value) = row?;
        let decoded = schema::parse_app_key(&key)
            .and_then(|app| Ok(Row::App(app, records::decode_app(&value)?)));
        loaded.take(tree::APPS, &key, decoded, each);
    }
    let mut app_info = Parts::new(tree::APP_INFO, schema::parse_app_part_key, |app, bytes| {
        let info = records::decode_app_info(bytes)?;
        Ok(Row::AppInfo(app, Box::new(info)))
    });
    app_info.read(&trees.app_info, &mut loaded, each, &mut |_, _| {})?;
    let mut services = Parts::new(
        tree::SERVICES,
        schema::parse_service_part_key,
        |key, bytes| Ok(Row::Service(key, ServiceRecord::from_row(bytes)?)),
    );
    // Both trees are in the order of services.
    let mut liveness = LivenessRows::of(trees);
    let mut failed = Ok(());
    let mut each_with_liveness = |row: Row| {
        let key = match &row {
            Row::Service(key, _) => Some(schema::service_key(key)),
            _ => None,
        };
        each(row);
        if let Some(key) = key
            && failed.is_ok()
        {
            failed = liveness.hand_out(Some(&key), each);
        }
    };
    services.read(
        &trees.services,
        &mut loaded,
        &mut each_with_liveness,
        &mut |key, value| sum.toggle(Counted::Services, key, value),
    )?;
    failed?;
    liveness.hand_out(None, each)?;
    loaded.skipped.append(&mut liveness.loaded.skipped);
    sum.join(liveness.sum);
    for row in trees.expiry.iter() {
        let (key, _) = row?;
        let decoded = schema::parse_expiry_key(&key).map(|(at, key)| Row::Armed(Armed { at, key }));
        loaded.take(tree::EXPIRY, &key, decoded, each);
    }
    let mut subscriptions = Parts::new(
        tree::SUBSCRIPTIONS,
        schema::parse_subscription_part_key,
        |(app, id), bytes| {
            let subscription = records::decode_subscription(app, id, bytes)?;
            Ok(Row::Subscription(Box::new(subscription)))
        },
    );
    subscriptions.read(
        &trees.subscriptions,
        &mut loaded,
        each,
        &mut |key, value| {
            sum.toggle(Counted::Subscriptions, key, value);
        },
    )?;
    for row in trees.cursors.iter() {
        let (key, value) = row?;
        let decoded = schema::parse_subscription_id(&key)
            .and_then(|id| Ok(Row::Cursor(id, records::decode_cursor(&value)?)));
        loaded.take(tree::CURSORS, &key, decoded, each);
    }
    for row in trees.blind_spots.iter() {
        let (key, value) = row?;
        let decoded = schema::parse_steady_key(&key)
            .and_then(|start| records::decode_blind_spot(start, &value));
        match decoded {
            Ok(spot) => loaded.blind_spots.push(spot),
            Err(error) => loaded.skip(tree::BLIND_SPOTS, &key, &error),
        }
    }
    loaded.next_sequence = FIRST_SEQUENCE;
    for row in trees.events.iter().rev() {
        let (key, value) = row?;
        if let Ok(sequence) = schema::parse_sequence_key(&key) {
            loaded.next_sequence = sequence + 1;
            // One that cannot be decoded is reported when it is asked for.
            let event = records::decode_event(sequence, &value).ok();
            loaded.last_event = event.map(|event| event.at.steady);
            break;
        }
    }
    Ok((loaded, sum))
}

/// The liveness of services, to be read along with them.
struct LivenessRows {
    rows: sled::Iter,
    /// What has been read and is not due yet.
    ahead: Option<(sled::IVec, sled::IVec)>,
    loaded: Loaded,
    sum: Fingerprint,
}

impl LivenessRows {
    fn of(trees: &Trees) -> Self {
        Self {
            rows: trees.liveness.iter(),
            ahead: None,
            loaded: Loaded::default(),
            sum: Fingerprint::default(),
        }
    }

    /// Hands out what stands up to and including a key; `None`: the rest.
    fn hand_out(&mut self, until: Option<&[u8]>, each: &mut dyn FnMut(Row)) -> Result<(), Error> {
        while let Some((key, value)) = match self.ahead.take() {
            Some(ahead) => Some(ahead),
            None => self.rows.next().transpose()?,
        } {
            if key == schema::CENSUS_KEY {
                continue;
            }
            if until.is_some_and(|until| key.as_ref() > until) {
                self.ahead = Some((key, value));
                break;
            }
            self.sum.toggle(Counted::Liveness, &key, &value);
            let decoded = schema::parse_service_key(&key)
                .and_then(|id| Ok(Row::Liveness(id, records::decode_liveness(&value)?)));
            self.loaded.take(tree::LIVENESS, &key, decoded, each);
        }
        Ok(())
    }
}

/// Records that stand in parts: consecutive rows of one key, joined before decoding. The checksum
/// covers all parts, so a missing one is noticed.
struct Parts<K, S, D> {
    tree: &'static str,
    split: S,
    decode: D,
    joined: Option<(K, Vec<u8>, sled::IVec)>,
}

impl<K, S, D> Parts<K, S, D>
where
    K: PartialEq,
    S: Fn(&[u8]) -> Result<(K, u16), DecodeError>,
    D: Fn(K, &[u8]) -> Result<Row, DecodeError>,
{
    fn new(tree: &'static str, split: S, decode: D) -> Self {
        Self {
            tree,
            split,
            decode,
            joined: None,
        }
    }

    /// Reads the whole tree; `sees` is shown every row.
    fn read(
        &mut self,
        rows: &sled::Tree,
        loaded: &mut Loaded,
        each: &mut dyn FnMut(Row),
        sees: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        for row in rows.iter() {
            let (raw_key, value) = row?;
            sees(&raw_key, &value);
            match (self.split)(&raw_key) {
                Ok((key, _)) => match &mut self.joined {
                    Some((current, bytes, _)) if *current == key => {
                        bytes.extend_from_slice(&value);
                    }
                    _ => {
                        self.finish(loaded, each);
                        self.joined = Some((key, value.to_vec(), raw_key));
                    }
                },
                Err(error) => loaded.skip(self.tree, &raw_key, &error),
            }
        }
        self.finish(loaded, each);
        Ok(())
    }

    fn finish(&mut self, loaded: &mut Loaded, each: &mut dyn FnMut(Row)) {
        if let Some((key, bytes, raw_key)) = self.joined.take() {
            loaded.take(self.tree, &raw_key, (self.decode)(key, &bytes), each);
        }
    }
}

impl Loaded {
    fn take(
        &mut self,
        tree: &'static str,
        key: &[u8],
        row: Result<Row, DecodeError>,
        each: &mut dyn FnMut(Row),
    ) {
        match row {
            Ok(row) => each(row),
            Err(error) => self.skip(tree, key, &error),
        }
    }

    fn skip(&mut self, tree: &'static str, key: &[u8], reason: &DecodeError) {
        let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.skipped.push(SkippedRow {
            tree,
            key,
            reason: reason.to_string(),
        });
    }
}
