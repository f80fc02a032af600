//! The RocksDB store; the only module that names rocksdb.
//!
//! Invariant: the merge operator never fails and never panics, because a failed merge in a compaction makes the database read-only for
//! good. Every tool that opens the database must open it through here, so that it has the operator.
//!
//! It purges nothing in compaction filters: a filter sees one level at a time, and purging there brings deleted values back.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties::{
    CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_PENDING_COMPACTION_BYTES, IS_WRITE_STOPPED,
    LIVE_SST_FILES_SIZE, PropName,
};
use rocksdb::{
    BlockBasedOptions, Cache, ChecksumType, ColumnFamily, ColumnFamilyDescriptor, CompactOptions,
    DB, DBCompressionType, DBRecoveryMode, ErrorKind, FlushOptions, MergeOperands, Options,
    ReadOptions, ReadTier, SliceTransform, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::{Batch, Family, Lookup, Operation, Store, StoreError, StoreStatistics, Tier, Visitor};
use crate::values;

/// Table id and token: what all keys of one token range share, see [`crate::keys`].
const KEY_PREFIX_BYTES: usize = 12;
/// Hints and marks are few and short-lived beside the data.
const SMALL_FAMILY_MEMTABLE_BYTES: usize = 4 << 20;

/// The log may be as long as so many memory tables of the data.
const WAL_MEMTABLES: usize = 6;

/// What is flushed or compacted stays in memory: otherwise each time the reads of leaders would go to the disk.
/// The crate has no setter for it.
const WARM_FILES: (&str, &str) =
    ("block_based_table_factory", "{prepopulate_block_cache=kFlushAndCompaction;}");

/// So much of a new file is handed to the disk at a time: all at once, it would hold up the syncs of the log.
const FILE_PIECE_BYTES: u64 = 512 << 10;
/// Flushes and compactions get their share of the rate so often, in microseconds: as fast as they can, they would take a processor from the
/// requests for half a second; in pieces of a few milliseconds they fit between these.
const RATE_PERIOD_US: i64 = 10_000;
/// Of so many shares a flush, which goes first, leaves one to a compaction.
const RATE_FAIRNESS: i32 = 10;

thread_local! {
    /// Operands of the last full merge on this thread: RocksDB runs the operator of a read on the reading thread.
    static CHAIN: Cell<usize> = const { Cell::new(0) };
}

/// The sizes a deployment may choose; everything else is decided by design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Memory for blocks, indexes, filters and (charged to it) memory tables.
    pub block_cache_bytes: usize,
    /// Size of one memory table of the data family.
    pub memtable_bytes: usize,
    /// Bytes a second that flushes and compactions may write together.
    pub compaction_bytes_max: u64,
    /// Threads for flushes and compactions together.
    pub background_jobs: i32,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions {
            block_cache_bytes: 64 << 20,
            memtable_bytes: 16 << 20,
            compaction_bytes_max: 64 << 20,
            background_jobs: 2,
        }
    }
}

/// A [`Store`] in one RocksDB directory, which it holds locked.
pub struct RocksStore {
    db: DB,
    read_cached: ReadOptions,
    read_any: ReadOptions,
    write_at_once: WriteOptions,
    write_waiting: WriteOptions,
}

impl RocksStore {
    /// Opens or creates the store in `path`. [`StoreError::Locked`] when somebody else has it open.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<RocksStore, StoreError> {
        let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, options, &cache))
        });
        let db = DB::open_cf_descriptors(&database_options(options, cache), path, families)
            .map_err(|error| open_error(path, &error))?;
        let data = db.cf_handle(Family::Data.name()).expect("it was just opened");
        db.set_options_cf(data, &[WARM_FILES]).map_err(|error| open_error(path, &error))?;
        Ok(RocksStore::of(db))
    }

    fn of(db: DB) -> RocksStore {
        let mut read_cached = ReadOptions::default();
        read_cached.set_read_tier(ReadTier::BlockCache);
        let mut write_at_once = WriteOptions::default();
        write_at_once.set_no_slowdown(true);
        RocksStore {
            db,
            read_cached,
            read_any: ReadOptions::default(),
            write_at_once,
            write_waiting: WriteOptions::default(),
        }
    }

    /// Opens the store in `path` to read it, while nobody writes to it. Takes no lock and changes nothing.
    pub fn open_read_only(path: &Path, options: &RocksOptions) -> Result<RocksStore, StoreError> {
        let cache = Cache::new_hyper_clock_cache(options.block_cache_bytes, 0);
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, options, &cache))
        });
        let mut database = database_options(options, cache);
        database.create_if_missing(false);
        let db = DB::open_cf_descriptors_read_only(&database, path, families, false);
        db.map(RocksStore::of).map_err(|error| open_error(path, &error))
    }

    /// Compacts every family down to one level. Blocks for long; for tests and tools.
    pub fn compact_all(&self) {
        for family in Family::ALL {
            self.db.compact_range_cf(self.handle(family), None::<&[u8]>, None::<&[u8]>);
        }
    }

    fn handle(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is opened with the database")
    }

    fn write_with(&self, batch: Batch, options: &WriteOptions) -> Result<(), StoreError> {
        let result = match batch.operations() {
            // A batch of its own costs RocksDB's C interface two allocations and a copy.
            [(family, Operation::Put(key, value))] => {
                self.db.put_cf_opt(self.handle(*family), key, value, options)
            }
            [(family, Operation::Merge(key, operand))] => {
                self.db.merge_cf_opt(self.handle(*family), key, operand, options)
            }
            operations => self.db.write_opt(self.encode(operations), options),
        };
        result.map_err(|error| match error.kind() {
            ErrorKind::Incomplete => StoreError::Stalled,
            _ => store_error("write", error),
        })
    }

    fn encode(&self, operations: &[(Family, Operation)]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        let handles = Family::ALL.map(|family| self.handle(family));
        for (family, operation) in operations {
            let handle = handles[*family as usize];
            match operation {
                Operation::Put(key, value) => batch.put_cf(handle, key, value),
                Operation::Merge(key, operand) => batch.merge_cf(handle, key, operand),
                Operation::Delete(key) => batch.delete_cf(handle, key),
                Operation::DeleteRange(start, end) => batch.delete_range_cf(handle, start, end),
            }
        }
        batch
    }

    /// The one constructor of scans. Total order, because with a prefix bloom filter a scan without it silently misses keys.
    fn scan_options(start: &[u8], end: &[u8]) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        // A scan reads much and returns to none of it.
        options.fill_cache(false);
        options.set_iterate_lower_bound(start);
        if !end.is_empty() {
            options.set_iterate_upper_bound(end);
        }
        options
    }
}

impl Store for RocksStore {
    fn get_with_chain(
        &self,
        family: Family,
        key: &[u8],
        tier: Tier,
    ) -> Result<(Lookup, usize), StoreError> {
        let options = match tier {
            Tier::Cached => &self.read_cached,
            Tier::Any => &self.read_any,
        };
        CHAIN.set(0);
        match self.db.get_pinned_cf_opt(self.handle(family), key, options) {
            Ok(Some(value)) => Ok((Lookup::Found(Bytes::copy_from_slice(&value)), CHAIN.get())),
            Ok(None) => Ok((Lookup::Absent, 0)),
            Err(error) if tier == Tier::Cached && is_not_cached(&error) => {
                Ok((Lookup::NotCached, 0))
            }
            Err(error) => Err(store_error("read", error)),
        }
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.write_with(batch, &self.write_at_once)
    }

    fn write_waiting(&self, batch: Batch) -> Result<(), StoreError> {
        self.write_with(batch, &self.write_waiting)
    }

    fn is_stopped(&self) -> bool {
        // A property that cannot be read says nothing; the write will.
        let stopped = self.db.property_int_value(IS_WRITE_STOPPED);
        stopped.is_ok_and(|stopped| stopped == Some(1))
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        if !end.is_empty() && start >= end {
            return Ok(());
        }
        let mut entries =
            self.db.raw_iterator_cf_opt(self.handle(family), Self::scan_options(start, end));
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
            entries.next();
        }
        entries.status().map_err(|error| store_error("scan", error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(|error| store_error("sync", error))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let handles = Family::ALL.map(|family| self.handle(family));
        self.db
            .flush_cfs_opt(&handles, &FlushOptions::default())
            .map_err(|error| store_error("flush", error))
    }

    fn compact(&self, start: &[u8], end: &[u8]) -> Result<(), StoreError> {
        // What is still in memory hides from a compaction, the deletes above all; and the log is space, too.
        self.flush()?;
        let data = self.handle(Family::Data);
        let end = (!end.is_empty()).then_some(end);
        let mut beside_others = CompactOptions::default();
        beside_others.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(data, Some(start), end, &beside_others);
        Ok(())
    }

    fn checkpoint(&self, path: &Path) -> Result<(), StoreError> {
        let made = Checkpoint::new(&self.db).and_then(|now| now.create_checkpoint(path));
        made.map_err(|error| store_error("checkpoint", error))
    }

    fn statistics(&self) -> StoreStatistics {
        let sum = |property: &PropName| {
            let of = |family| self.db.property_int_value_cf(self.handle(family), property);
            // A property that cannot be read counts as nothing.
            Family::ALL.into_iter().filter_map(|family| of(family).ok().flatten()).sum()
        };
        StoreStatistics {
            tables: sum(LIVE_SST_FILES_SIZE),
            memtables: sum(CUR_SIZE_ALL_MEM_TABLES),
            compactions_owed: sum(ESTIMATE_PENDING_COMPACTION_BYTES),
        }
    }

    fn latest_sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }
}

fn database_options(options: &RocksOptions, cache: Cache) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_paranoid_checks(true);
    database.set_max_background_jobs(options.background_jobs);
    // Merges do not group under pipelined writes, and unordered writes would break read-your-writes under a stripe.
    database.set_enable_pipelined_write(false);
    database.set_unordered_write(false);
    // kill -9 must not lose what the operating system has: no buffering of the log in this process.
    database.set_manual_wal_flush(false);
    // A zeroed page in the unsynced tail would make the tolerant mode refuse to open.
    database.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    database.set_track_and_verify_wals_in_manifest(true);
    let memtables = options.memtable_bytes * 3 + SMALL_FAMILY_MEMTABLE_BYTES * 2;
    let manager = WriteBufferManager::new_write_buffer_manager_with_cache(memtables, false, cache);
    database.set_write_buffer_manager(&manager);
    // A start replays the log before it serves: a family that is seldom written must not keep much of it.
    database.set_max_total_wal_size((options.memtable_bytes * WAL_MEMTABLES) as u64);
    let rate = i64::try_from(options.compaction_bytes_max).unwrap_or(i64::MAX);
    database.set_ratelimiter(rate, RATE_PERIOD_US, RATE_FAIRNESS);
    database.set_bytes_per_sync(FILE_PIECE_BYTES);
    database.set_keep_log_file_num(4);
    database.set_max_log_file_size(4 << 20);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

fn family_options(family: Family, options: &RocksOptions, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    table.set_checksum_type(ChecksumType::XXH3);

    let mut tuning = Options::default();
    tuning.set_compression_type(DBCompressionType::Lz4);
    tuning.set_level_compaction_dynamic_level_bytes(true);
    tuning.set_write_buffer_size(SMALL_FAMILY_MEMTABLE_BYTES);
    if family == Family::Data {
        tuning.set_write_buffer_size(options.memtable_bytes);
        tuning.set_max_write_buffer_number(3);
        tuning.set_prefix_extractor(SliceTransform::create_fixed_prefix(KEY_PREFIX_BYTES));
        tuning.set_memtable_prefix_bloom_ratio(0.1);
        tuning.set_memtable_whole_key_filtering(true);
        tuning.set_merge_operator("starling.join", merge_full, merge_partial);
    }
    tuning.set_block_based_table_factory(&table);
    tuning
}

fn merge_full(_key: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    CHAIN.set(operands.len());
    Some(values::merge(existing, operands.iter()))
}

fn merge_partial(_key: &[u8], _none: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    Some(values::merge(None, operands.iter()))
}

fn is_not_cached(error: &rocksdb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Incomplete | ErrorKind::MergeInProgress)
}

fn store_error(operation: &'static str, error: rocksdb::Error) -> StoreError {
    let reason = |error: rocksdb::Error| error.into_string();
    match error.kind() {
        ErrorKind::Corruption => StoreError::Corruption { operation, reason: reason(error) },
        _ => StoreError::Io { operation, reason: reason(error) },
    }
}

fn open_error(path: &Path, error: &rocksdb::Error) -> StoreError {
    let reason: &str = error.as_ref();
    // RocksDB has no status code for this; both of its messages (other process, same process) speak of the lock.
    if reason.contains("lock file") || reason.contains("lock hold by") {
        return StoreError::Locked { path: path.to_owned() };
    }
    StoreError::Open { path: path.to_owned(), reason: reason.to_owned() }
}
