"""Faults put into our own code one at a time, each with the test that must notice it.

A mutant is a replacement of text that occurs once in one file of the package. The tests are node
ids as pytest takes them; one with parameters stands for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

DURABLE = "monox_kit/durable.py"
LOCKS = "monox_kit/locks.py"
WRITER = "monox_kit/store/writer.py"
BEGINNING = "monox_kit/store/beginning.py"
BUILDER = "monox_kit/store/builder.py"
ARRAYS = "monox_kit/store/arrays.py"
SHARD = "monox_kit/store/shard.py"
RECORD = "monox_kit/store/record.py"
READER = "monox_kit/store/reader.py"
KEPT_SCAN = "monox_kit/labelling/kept_scan.py"
WINDOWS = "monox_kit/labelling/windows.py"
SHARDS = "monox_kit/labelling/shards.py"
SCORING = "monox_kit/models/scoring.py"
CORPUS = "monox_kit/corpora/corpus.py"
MARKS = "monox_kit/corpora/marks.py"
PLACE = "monox_kit/store/place.py"
OBJECTS = "monox_kit/store/remote/objects.py"
SHARD_OBJECT = "monox_kit/store/remote/shard_object.py"
URL_WRITER = "monox_kit/store/remote/writer.py"
URL_STORE = "monox_kit/store/remote/store.py"

IN_DURABLE = "tests/unit/test_durable.py::"
IN_LOCKS = "tests/unit/test_locks.py::"
IN_WRITER = "tests/unit/test_store_writer.py::"
IN_BEGINNING = "tests/unit/test_store_beginning.py::"
IN_BUILDER = "tests/unit/test_store_builder.py::"
IN_READER = "tests/unit/test_store_reader.py::"
IN_FORMAT = "tests/unit/test_store_format.py::"
IN_KEPT_SCAN = "tests/unit/test_kept_scan.py::"
IN_WINDOWS = "tests/unit/test_windows.py::"
IN_SCORING = "tests/integration/test_scoring.py::"
IN_LABELLING = "tests/integration/test_labelling.py::"
IN_POWER = "tests/faults/test_power_loss.py::"
IN_URL = "tests/unit/test_store_url.py::"
IN_URL_DAMAGE = "tests/unit/test_store_url_damage.py::"
IN_ADDRESS = "tests/cli/test_store_address.py::"

FILE_ORDER = IN_DURABLE + "test_file_reaches_the_disk_before_its_name_does"
FOLDER_ORDER = IN_DURABLE + "test_folder_reaches_the_disk_before_its_name_does"
SIDE_BY_SIDE = IN_WRITER + "test_writers_of_different_shards_work_side_by_side"
AFTER_A_KILL = IN_POWER + "test_a_power_loss_after_a_kill_between_a_name_and_its_fsync"
COMPLETING_OTHERS = IN_POWER + "test_a_power_loss_after_completing_what_a_killed_writer_left"
REFUSED_WHOLE = IN_WRITER + "test_a_shard_that_does_not_fit_is_refused_whole"
CHANGED_ROWS = IN_WINDOWS + "test_rows_that_changed_since_the_scan_are_an_error"
OWN_LOGITS = IN_SCORING + "test_every_document_gets_its_own_logits_and_equal_ones_are_computed_once"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        name: what is wrong.
        file: the file that is changed, below the root of the checkout.
        old: text that occurs once in it.
        new: what stands in its place.
        test: the node id that must fail.
        is_sampled: whether it is among the few that run by default.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    is_sampled: bool = False


MUTANTS = (
    # Durable writes
    Mutant(
        name="no fsync of a file",
        file=DURABLE,
        old="                os.fsync(stream.fileno())\n",
        new="",
        test=FILE_ORDER,
        is_sampled=True,
    ),
    Mutant(
        name="no fsync of a shard's files",
        file=DURABLE,
        old="                os.fsync(descriptor)\n            finally:",
        new="                pass\n            finally:",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="no fsync of a shard's folder",
        file=DURABLE,
        old="        fsync_folder(Path(parent))\n",
        new="",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="no fsync of a shard, under power losses",
        file=DURABLE,
        old="            fsync_tree(temporary)\n",
        new="",
        test=IN_POWER + "test_a_run_cut_by_a_power_loss_goes_on",
    ),
    Mutant(
        name="no fsync of the parent after a file's rename",
        file=DURABLE,
        old="            try:\n                fsync_folder(path.parent)\n",
        new="            try:\n                pass\n",
        test=FILE_ORDER,
    ),
    Mutant(
        name="no fsync of the parent after a folder's rename",
        file=DURABLE,
        old="    try:\n        fsync_folder(final.parent)\n",
        new="    try:\n        pass\n",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="a file is renamed before its fsync",
        file=DURABLE,
        old="                stream.flush()\n                os.fsync(stream.fileno())\n",
        new="                stream.flush()\n                os.replace(temporary, path)\n"
        "                os.fsync(stream.fileno())\n                return\n",
        test=FILE_ORDER,
    ),
    Mutant(
        name="a folder is renamed before its fsync",
        file=DURABLE,
        old="            fsync_tree(temporary)\n            if verify is not None:\n"
        "                verify(temporary)\n"
        "            _rename_folder(temporary, final, replace=replace)\n",
        new="            if verify is not None:\n                verify(temporary)\n"
        "            _rename_folder(temporary, final, replace=replace)\n"
        "            fsync_tree(final)\n",
        test=FOLDER_ORDER,
    ),
    Mutant(
        name="new folders without fsync of those above",
        file=DURABLE,
        old="(exist_ok=True)\n                fsync_folder(path.parent)\n",
        new="(exist_ok=True)\n",
        test=IN_POWER + "test_a_run_cut_by_a_power_loss_goes_on",
    ),
    Mutant(
        name="a failed fsync is passed over",
        file=DURABLE,
        old="    try:\n        os.fsync(descriptor)\n    finally:\n        os.close(descriptor)\n",
        new="    with contextlib.suppress(OSError):\n        os.fsync(descriptor)\n"
        "    os.close(descriptor)\n",
        test=IN_DURABLE + "test_a_failed_fsync_is_fatal",
    ),
    Mutant(
        name="a shard whose name failed to reach the disk stays",
        file=DURABLE,
        old="        os.rename(final, temporary)\n        if retired",
        new="        if retired",
        test=IN_DURABLE + "test_a_failed_fsync_is_fatal",
    ),
    Mutant(
        name="a folder is committed on an exception",
        file=DURABLE,
        old="            shutil.rmtree(temporary, ignore_errors=True)\n",
        new="            _rename_folder(temporary, final, replace=replace)\n",
        test=IN_DURABLE + "test_an_error_leaves_the_old_folder",
    ),
    Mutant(
        name="leftovers of names that begin alike are removed",
        file=DURABLE,
        old='ours["name"] not in of):',
        new='not ours["name"].startswith(tuple(of))):',
        test=IN_DURABLE + "test_leftovers_of_a_killed_writer_are_removed",
    ),
    # The writer
    Mutant(
        name="no lock on the shards",
        file=WRITER,
        old="            locks.take(*shard_bytes(self._claimed), _shown(self._claimed))\n",
        new="",
        test=IN_WRITER + "test_a_second_writer_is_refused_until_the_first_is_gone",
    ),
    Mutant(
        name="the last claimed shard is not locked",
        file=BEGINNING,
        old="WHOLE + 1 + claimed.stop",
        new="WHOLE + claimed.stop",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="one shard too many is locked",
        file=BEGINNING,
        old="WHOLE + 1 + claimed.stop",
        new="WHOLE + 2 + claimed.stop",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="leftovers of other writers are removed",
        file=WRITER,
        old="            remove_all_leftovers(shards, names)\n",
        new="            remove_all_leftovers(shards)\n",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="a store is completed by whoever is done, without the others' shards",
        file=WRITER,
        old="                if len(shards) < self.manifest.num_shards:\n"
        "                    return None\n",
        new="",
        test=SIDE_BY_SIDE,
    ),
    Mutant(
        name="a store is completed without the writer's own shards",
        file=WRITER,
        old="        if self._missing:\n",
        new="        if False:\n",
        test=IN_WRITER + "test_completing_needs_every_shard",
    ),
    Mutant(
        name="complete.json is written first",
        file=WRITER,
        old="        store = self._begun()\n        if self._missing:\n",
        new="        store = self._begun()\n"
        '        write_file(self.folder / COMPLETE_FILE, b"{}")\n        if self._missing:\n',
        test=IN_WRITER + "test_completing_needs_every_shard",
    ),
    Mutant(
        name="an exception completes the store",
        file=WRITER,
        old="        if self._locks is not None:\n            self._locks.__exit__()\n"
        "        self._locks = self._store = None\n",
        new="        if self._locks is not None:\n            self.complete()\n"
        "            self._locks.__exit__()\n        self._locks = self._store = None\n",
        test=IN_WRITER + "test_leaving_completes_nothing",
    ),
    Mutant(
        name="a shard's folder is believed without its record",
        file=WRITER,
        old="[store.read_shard(shard).digest for shard in done]\n        if record",
        new="[]\n        if record",
        test=IN_WRITER + "test_a_shard_folder_without_its_record_is_no_finished_shard",
    ),
    Mutant(
        name="the manifest is not compared",
        file=WRITER,
        old="            store.manifest.require_equal(self.manifest, path)\n",
        new="",
        test=IN_FORMAT + "test_drift_is_refused_by_name_with_both_values",
    ),
    Mutant(
        name="the store's own names are not synced at resume",
        file=WRITER,
        old="fsync_folder(shards)\n            fsync_folder(self.folder)\n",
        new="fsync_folder(shards)\n",
        test=AFTER_A_KILL + "[store.json]",
    ),
    Mutant(
        name="the shards' names are not synced at resume",
        file=WRITER,
        old="            fsync_folder(shards)\n",
        new="",
        test=AFTER_A_KILL + "[000002]",
    ),
    Mutant(
        name="a killed writer's shards are not synced before completing",
        file=WRITER,
        old="                _fsync_names(self.folder / SHARDS_FOLDER)\n",
        new="",
        test=COMPLETING_OTHERS + "[000005]",
    ),
    Mutant(
        name="a killed writer's complete.json is not synced",
        file=WRITER,
        old="                _fsync_names(self.folder)\n",
        new="                pass\n",
        test=COMPLETING_OTHERS + "[complete.json]",
    ),
    # A shard's content
    Mutant(
        name="nothing is read back",
        file=BUILDER,
        old="        record = store.shards.read_record(folder, shard)\n",
        new="        return\n",
        test=IN_WRITER + "test_a_disk_that_gives_back_other_bytes_is_noticed",
    ),
    Mutant(
        name="a shard's rows are not counted",
        file=BUILDER,
        old="        if self.next_row != shard.stop:\n",
        new="        if False:\n",
        test=IN_BUILDER + "test_too_few_rows_commit_nothing",
    ),
    Mutant(
        name="rows are keyed by their text",
        file=BUILDER,
        old='            "rows.npy": np.arange(rows.start, rows.stop, dtype="<i8"),\n',
        new='            "rows.npy": np.array('
        "[{d.text: d.row for d in documents}[d.text] for d in documents]),\n",
        test=IN_WRITER + "test_rows_of_equal_texts_stay_as_many_and_in_order",
    ),
    Mutant(
        name="a shard's digest does not cover its last part",
        file=BUILDER,
        old="        self._digest.update(content)\n",
        new="        self._digest.update(content[:1])\n",
        test=IN_BUILDER + "test_parts_give_the_store_of_whole_shards",
    ),
    Mutant(
        name="gold labels are shifted by one row",
        file=ARRAYS,
        old="    return np.ascontiguousarray(labels, dtype=problem.label_descr)\n",
        new="    return np.ascontiguousarray(np.roll(labels, 1), dtype=problem.label_descr)\n",
        test=IN_READER + "test_rows_come_in_the_order_asked_for",
        is_sampled=True,
    ),
    Mutant(
        name="logits may be NaN",
        file=ARRAYS,
        old="    if not finite.all():\n",
        new="    if False:\n",
        test=REFUSED_WHOLE,
    ),
    Mutant(
        name="the documents' rows are not compared",
        file=ARRAYS,
        old="        if document.row != row:\n",
        new="        if False:\n",
        test=REFUSED_WHOLE,
    ),
    # Reading
    Mutant(
        name="no digest is checked",
        file=SHARD,
        old="        if found is not None and found != file.sha256:\n",
        new="        if False:\n",
        test=IN_READER + "test_when_a_changed_byte_is_noticed",
    ),
    Mutant(
        name="no size is checked",
        file=RECORD,
        old=" or status.st_size != num_bytes:\n",
        new=":\n",
        test=IN_READER + "test_a_file_of_another_size_is_noticed_at_once",
    ),
    Mutant(
        name="an incomplete store is taken for complete",
        file=READER,
        old="        if complete is None and not allow_incomplete:\n",
        new="        if False:\n",
        test=IN_READER + "test_an_incomplete_store_is_refused_unless_asked_for",
    ),
    # Labelling
    Mutant(
        name="a kept scan is believed whatever its bytes are",
        file=KEPT_SCAN,
        old="    if hashlib.sha256(body).digest() != digest:\n",
        new="    if False:\n",
        test=IN_KEPT_SCAN + "test_a_damaged_one_is_never_believed",
    ),
    Mutant(
        name="a kept scan of other files is taken",
        file=KEPT_SCAN,
        old='        if header["key"] != self._key:\n',
        new="        if False:\n",
        test=IN_KEPT_SCAN + "test_files_that_were_touched_are_scanned_again",
    ),
    Mutant(
        name="a complete store keeps the scan",
        file=WRITER,
        old="                remove_scan(self.folder)\n                self._locks",
        new="                self._locks",
        test=IN_KEPT_SCAN + "test_a_complete_store_keeps_none",
    ),
    Mutant(
        name="a corpus that changes is not noticed",
        file=WINDOWS,
        old="                if digest.hexdigest() != mark.digest or",
        new="                if",
        test=CHANGED_ROWS,
    ),
    Mutant(
        name="rows that were appended are not noticed",
        file=WINDOWS,
        old=" or (is_last and any(True for _ in documents)):\n",
        new=":\n",
        test=CHANGED_ROWS,
    ),
    Mutant(
        name="a shard is compared with another one's mark",
        file=WINDOWS,
        old="        mark = marks[shard.index]\n",
        new="        mark = marks[max(shard.index - 1, 0)]\n",
        test=IN_WINDOWS + "test_the_rows_of_missing_shards_come_once_and_in_order",
    ),
    Mutant(
        name="a scan's mark covers all rows before it, not its own",
        file=MARKS,
        old="digest=self._block.hexdigest()",
        new="digest=self.digest.hexdigest()",
        test=IN_WINDOWS + "test_the_rows_of_missing_shards_come_once_and_in_order",
    ),
    Mutant(
        name="rows that repeat are dropped from the corpus",
        file=CORPUS,
        old="            for raw in source.rows(self._columns, meter):\n",
        new="            by_text = {raw[1]: raw for raw in source.rows(self._columns, meter)}\n"
        "            for raw in by_text.values():\n",
        test=IN_LABELLING + "test_equal_texts_go_through_the_model_once",
    ),
    Mutant(
        name="logits of the distinct texts alone: a set, no multiset",
        file=SCORING,
        old="    return Scored(logits[inverse], ",
        new="    return Scored(logits, ",
        test=OWN_LOGITS,
    ),
    Mutant(
        name="texts are keyed by part of their content",
        file=SCORING,
        old="first.setdefault((d.text, d.text_pair), len(first))",
        new="first.setdefault((d.text[:4], d.text_pair), len(first))",
        test=OWN_LOGITS,
    ),
    Mutant(
        name="logits stand in the order of the batches",
        file=SCORING,
        old="        logits[batch_rows] = classifier.logits(batch)\n",
        new="        logits[np.sort(batch_rows)] = classifier.logits(batch)\n",
        test=OWN_LOGITS,
    ),
    Mutant(
        name="gold labels are those of the row before",
        file=SHARDS,
        old='(window.documents, "corpus", ',
        new='([window.documents[-1], *window.documents[:-1]], "corpus", ',
        test=IN_LABELLING + "test_stored_logits_are_those_of_one_text_at_a_time",
    ),
    # A store at a URL
    Mutant(
        name="objects are put over others",
        file=OBJECTS,
        old='put(self._path(name), content, mode="create", ',
        new="put(self._path(name), content, ",
        test=IN_URL + "test_of_two_that_label_a_shard_the_first_one_wins",
    ),
    Mutant(
        name="a second put may succeed",
        file=OBJECTS,
        old="        if self._put(PROBE_NAME, _PROBE, accepts_lost_answer=False):\n",
        new="        if False:\n",
        test=IN_URL + "test_a_service_without_put_if_absent_is_refused_before_any_work",
    ),
    Mutant(
        name="a lost answer is taken for a failure",
        file=OBJECTS,
        old="if _is_taken(error) or (accepts_lost_answer and self._is_there(name)):",
        new="if False:",
        test=IN_URL + "test_an_answer_that_is_lost_is_no_error",
    ),
    Mutant(
        name="a short read is taken for the whole",
        file=OBJECTS,
        old="            if len(block) != last - first:\n",
        new="            if False:\n",
        test=IN_URL + "test_a_read_that_ends_early_is_an_error",
    ),
    Mutant(
        name="objects are not read back",
        file=URL_WRITER,
        old="            for _ in store.files(head):\n",
        new="            for _ in ():\n",
        test=IN_URL + "test_a_service_that_changes_what_is_put_is_found_out",
    ),
    Mutant(
        name="the winner's rows are not compared",
        file=URL_WRITER,
        old="        if name not in _COMPUTED and found != file:\n",
        new="        if False:\n",
        test=IN_URL + "test_a_shard_of_other_rows_is_no_winner",
    ),
    Mutant(
        name="the winner's logits must be equal",
        file=URL_WRITER,
        old="        if name not in _COMPUTED and found != file:\n",
        new="        if found != file:\n",
        test=IN_URL + "test_of_two_that_label_a_shard_the_first_one_wins",
    ),
    Mutant(
        name="the URL's settings are not compared",
        file=URL_WRITER,
        old="    store.manifest.require_equal(manifest, objects.where(STORE_FILE))\n",
        new="",
        test=IN_URL + "test_other_settings_are_refused_by_name",
    ),
    Mutant(
        name="shards stay in the staging folder",
        file="monox_kit/store/remote/staging.py",
        old="        finally:\n            remove_folder(folder)\n",
        new="        finally:\n            pass\n",
        test=IN_URL + "test_what_is_fetched_is_what_a_local_run_writes",
    ),
    Mutant(
        name="the files of an object are not checked",
        file=SHARD_OBJECT,
        old='        _require_digest(f"{where}: {name}", digest.hexdigest(), file.sha256, step)\n',
        new="",
        test=IN_URL_DAMAGE + "test_a_flipped_bit_anywhere_is_found_by_fetch_and_verify",
    ),
    Mutant(
        name="what follows an object's files is passed over",
        file=SHARD_OBJECT,
        old="    if num_bytes != found.object_bytes:\n",
        new="    if num_bytes < found.object_bytes:\n",
        test=IN_URL_DAMAGE + "test_an_object_of_another_length_is_found",
    ),
    Mutant(
        name="fetched shards are not compared with the URL's",
        file="monox_kit/store/remote/fetch.py",
        old="        if found != expected:\n",
        new="        if False:\n",
        test=IN_URL_DAMAGE + "test_a_fetch_over_shards_with_other_logits_is_refused",
    ),
    Mutant(
        name="a lock on a file that was removed counts",
        file=LOCKS,
        old="            self.require_current()  # it may have been removed since it was opened\n",
        new="            pass\n",
        test=IN_LOCKS + "test_nobody_gets_a_lock_on_a_file_that_another_removed",
    ),
    Mutant(
        name="a writer commits without its lock",
        file=WRITER,
        old="        self._locks.require_current()\n        return store\n",
        new="        return store\n",
        test=IN_WRITER + "test_a_writer_whose_lock_was_removed_commits_nothing[nothing_beside]",
    ),
    Mutant(
        name="the lock is not looked at last before a commit",
        file=BUILDER,
        old="        ) from error\n    require_own()\n",
        new="        ) from error\n",
        test=IN_WRITER + "test_a_writer_whose_lock_goes_while_a_shard_is_read_back_commits_nothing",
    ),
    Mutant(
        name="a store is completed without the lock",
        file=WRITER,
        old="                self._locks.require_current()  # reading",
        new="                # reading",
        test=IN_WRITER + "test_a_writer_whose_lock_was_removed_completes_nothing",
    ),
    Mutant(
        name="a bad row is not told to those who wait",
        file=BEGINNING,
        old="            if locks.is_held(_WAITING):\n",
        new="            if False:\n",
        test=IN_BEGINNING + "test_a_bad_row_is_found_once_for_all_who_wait",
    ),
    Mutant(
        name="a bad row of other files is believed",
        file=BEGINNING,
        old="            if failed is not None and failed.about == turn.about:\n",
        new="            if failed is not None:\n",
        test=IN_BEGINNING + "test_who_waits_with_other_files_looks_for_itself",
    ),
    Mutant(
        name="a killed run is named as the one that is waited for",
        file=BEGINNING,
        old="        if locks.is_held(_NAMED):",
        new="        if True:",
        test=IN_BEGINNING + "test_what_a_killed_one_left_names_nobody",
    ),
    Mutant(
        name="files are known as they were before the wait",
        file=KEPT_SCAN,
        old="                self._key = self._key_now()  #",
        new="                #",
        test=IN_KEPT_SCAN + "test_files_that_change_during_the_wait_are_known_as_they_are_scanned",
    ),
    Mutant(
        name="a scan that cannot be kept ends the run",
        file=KEPT_SCAN,
        old="        except StorageError as error:\n            self._progress",
        new="        except KeyError as error:\n            self._progress",
        test=IN_KEPT_SCAN + "test_a_scan_that_cannot_be_kept_is_a_note",
    ),
    Mutant(
        name="records of all shards at a URL are kept",
        file=URL_STORE,
        old="        for head in self.heads(self.finished_shards()):\n",
        new="        for head in list(self.heads(self.finished_shards())):\n",
        test=IN_URL + "test_records_of_many_shards_are_never_in_memory_together",
    ),
    Mutant(
        name="the staging that verify is given is not used",
        file=PLACE,
        old="        return verify_remote(self._objects.url, progress, self._staging)\n",
        new="        return verify_remote(self._objects.url, progress)\n",
        test=IN_ADDRESS + "test_a_store_at_a_url_is_checked_in_the_folder_that_was_asked_for",
    ),
)
