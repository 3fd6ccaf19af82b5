"""The logit store: a teacher's logits with their texts, on disk, crash-safe and checkable."""

from monox_kit.store.builder import ShardBuilder
from monox_kit.store.folder import begun_manifest, require_local
from monox_kit.store.format import CompleteRecord, ShardRange, StoreManifest
from monox_kit.store.reader import LogitStore, StoreInfo
from monox_kit.store.verify import VerifyReport, verify_store
from monox_kit.store.writer import StoreWriter

__all__ = [
    "CompleteRecord",
    "LogitStore",
    "ShardBuilder",
    "ShardRange",
    "StoreInfo",
    "StoreManifest",
    "StoreWriter",
    "VerifyReport",
    "begun_manifest",
    "require_local",
    "verify_store",
]
