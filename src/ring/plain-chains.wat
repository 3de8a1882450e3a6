;; The loops over rings for chains of one plain descriptor. Compiled to plain-chains.wasm.ts by
;; `node scripts/wasm.ts`. Tables are frame tables (`memory/copy.ts`, FRAME_TABLE).
;;
;; collectSplit(ring, mask, next, descriptors, flags, table, slot, last, start, end, delta): reads available
;; entries from index `next` on, of the driver area's entries at `ring`, into slots `slot` … last - 1 of
;; `table`. Stops at the first chain that is not one descriptor with these flags whose memory lies in
;; [start, end), the range of guest addresses that lies `delta` away in the arena; returns its slot, or
;; `last`.
;;
;; collectPacked(descriptors, size, next, wrap, flags, table, slot, last, start, end, delta): the same in a
;; packed ring, from descriptor `next` on, where the driver's wrap counter is `wrap`; stops at the first
;; descriptor that is not available too.
;;
;; completeSplit(ring, mask, used, table, from, to): writes used entries from index `used` on, of the
;; device area's entries at `ring`, for slots from … to - 1: `id` and `written`.
;;
;; completePacked(descriptors, size, used, wrap, table, from, to, mask): the same in a packed ring, from
;; descriptor `used` on, where the device's wrap counter is `wrap`; lengths are `written` & `mask`. It
;; begins with the last: the driver polls the first one's cache line, which so is taken from it once.
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  ;; Checks the memory of the descriptor at $at and notes it in slot $slot; 0 if it is not plain.
  (func $take
    (param $at i32) (param $table i32) (param $slot i32)
    (param $start f64) (param $end f64) (param $delta f64)
    (result i32)
    (local $guest f64) (local $bytes i32) (local $word i32)
    (local.set $bytes (i32.load offset=8 (local.get $at)))
    (if (i32.eqz (local.get $bytes)) (then (return (i32.const 0))))
    ;; An address from 2^63 on is negative here, and in no range.
    (local.set $guest (f64.convert_i64_s (i64.load (local.get $at))))
    (if (f64.lt (local.get $guest) (local.get $start)) (then (return (i32.const 0))))
    (if
      (f64.gt
        (f64.add (local.get $guest) (f64.convert_i32_u (local.get $bytes)))
        (local.get $end))
      (then (return (i32.const 0))))
    (f64.store
      (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 3)))
      (f64.add (local.get $guest) (local.get $delta)))
    (local.set $word (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 2))))
    (i32.store offset=1024 (local.get $word) (local.get $bytes))
    (i32.store offset=2304 (local.get $word) (local.get $bytes))
    (i32.const 1))

  (func (export "collectSplit")
    (param $ring i32) (param $mask i32) (param $next i32) (param $descriptors i32) (param $flags i32)
    (param $table i32) (param $slot i32) (param $last i32)
    (param $start f64) (param $end f64) (param $delta f64)
    (result i32)
    (local $head i32) (local $at i32)
    (block $done
      (loop $chain
        (br_if $done (i32.ge_u (local.get $slot) (local.get $last)))
        (local.set $head
          (i32.load16_u
            (i32.add
              (local.get $ring)
              (i32.shl (i32.and (local.get $next) (local.get $mask)) (i32.const 1)))))
        (br_if $done (i32.gt_u (local.get $head) (local.get $mask)))
        (local.set $at (i32.add (local.get $descriptors) (i32.shl (local.get $head) (i32.const 4))))
        (br_if $done
          (i32.ne
            (i32.and (i32.load16_u offset=12 (local.get $at)) (i32.const 7))
            (local.get $flags)))
        (br_if $done
          (i32.eqz
            (call $take
              (local.get $at) (local.get $table) (local.get $slot)
              (local.get $start) (local.get $end) (local.get $delta))))
        (i32.store16 offset=2816
          (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 1)))
          (local.get $head))
        (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
        (local.set $next (i32.add (local.get $next) (i32.const 1)))
        (br $chain)))
    (local.get $slot))

  (func (export "collectPacked")
    (param $descriptors i32) (param $size i32) (param $next i32) (param $wrap i32) (param $flags i32)
    (param $table i32) (param $slot i32) (param $last i32)
    (param $start f64) (param $end f64) (param $delta f64)
    (result i32)
    (local $word i32) (local $at i32)
    (block $done
      (loop $chain
        (br_if $done (i32.ge_u (local.get $slot) (local.get $last)))
        (local.set $at (i32.add (local.get $descriptors) (i32.shl (local.get $next) (i32.const 4))))
        ;; The flags (upper half, beside the id) are a barrier: the rest is read after them (§2.8.19).
        (local.set $word (i32.atomic.load offset=12 (local.get $at)))
        ;; Available: VIRTQ_DESC_F_AVAIL (bit 7 of the flags) is the wrap counter, _USED (bit 15) is not.
        (br_if $done
          (i32.ne
            (i32.and (i32.shr_u (local.get $word) (i32.const 23)) (i32.const 1))
            (local.get $wrap)))
        (br_if $done (i32.eq (i32.shr_u (local.get $word) (i32.const 31)) (local.get $wrap)))
        (br_if $done
          (i32.ne
            (i32.and (i32.shr_u (local.get $word) (i32.const 16)) (i32.const 7))
            (local.get $flags)))
        (br_if $done
          (i32.eqz
            (call $take
              (local.get $at) (local.get $table) (local.get $slot)
              (local.get $start) (local.get $end) (local.get $delta))))
        (i32.store16 offset=2816
          (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 1)))
          (local.get $word))
        (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
        (local.set $next (i32.add (local.get $next) (i32.const 1)))
        (if (i32.eq (local.get $next) (local.get $size))
          (then
            (local.set $next (i32.const 0))
            (local.set $wrap (i32.xor (local.get $wrap) (i32.const 1)))))
        (br $chain)))
    (local.get $slot))

  (func (export "completeSplit")
    (param $ring i32) (param $mask i32) (param $used i32) (param $table i32) (param $i i32) (param $to i32)
    (local $at i32) (local $entry i64) (local $same i32)
    (local.set $same (i32.const 1))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $to)))
        (local.set $at
          (i32.add
            (local.get $ring)
            (i32.shl (i32.and (local.get $used) (local.get $mask)) (i32.const 3))))
        (local.set $entry
          (i64.or
            (i64.load16_u offset=2816
              (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 1))))
            (i64.shl
              (i64.load32_u offset=2560
                (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 2))))
              (i64.const 32))))
        ;; A driver that takes its buffers in turn and frames of one length make the entries of the lap
        ;; before: what is not stored stays near to the driver's processor too.
        (if
          (i32.eqz
            (i32.and (local.get $same) (i64.eq (i64.load align=4 (local.get $at)) (local.get $entry))))
          (then
            (local.set $same (i32.const 0))
            (i64.store align=4 (local.get $at) (local.get $entry))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $used (i32.add (local.get $used) (i32.const 1)))
        (br $next))))

  (func (export "completePacked")
    (param $descriptors i32) (param $size i32) (param $used i32) (param $wrap i32)
    (param $table i32) (param $from i32) (param $i i32) (param $mask i32)
    (local $written i64) (local $flags i64)
    ;; The position after the last one.
    (local.set $used (i32.add (local.get $used) (i32.sub (local.get $i) (local.get $from))))
    (if (i32.gt_u (local.get $used) (local.get $size))
      (then
        (local.set $used (i32.sub (local.get $used) (local.get $size)))
        (local.set $wrap (i32.xor (local.get $wrap) (i32.const 1)))))
    ;; VIRTQ_DESC_F_AVAIL and _USED, as the wrap counter says
    (local.set $flags (select (i64.const 0x8080000000000000) (i64.const 0) (local.get $wrap)))
    (block $done
      (loop $next
        (br_if $done (i32.le_u (local.get $i) (local.get $from)))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (local.set $written
          (i64.load32_u offset=2560
            (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 2)))))
        (local.set $written (i64.and (local.get $written) (i64.extend_i32_u (local.get $mask))))
        (if (i32.eqz (local.get $used))
          (then
            (local.set $used (local.get $size))
            (local.set $flags (i64.xor (local.get $flags) (i64.const 0x8080000000000000)))))
        (local.set $used (i32.sub (local.get $used) (i32.const 1)))
        ;; Length, id and flags in one store: a length never changes in what still looks available.
        (i64.store offset=8
          (i32.add (local.get $descriptors) (i32.shl (local.get $used) (i32.const 4)))
          (i64.or
            (i64.or (local.get $written) (local.get $flags))
            (i64.or
              (i64.shl
                (i64.load16_u offset=2816
                  (i32.add (local.get $table) (i32.shl (local.get $i) (i32.const 1))))
                (i64.const 32))
              ;; VIRTQ_DESC_F_WRITE: there is a length
              (select
                (i64.const 0)
                (i64.const 0x2000000000000)
                (i64.eqz (local.get $written))))))
        (br $next)))))
