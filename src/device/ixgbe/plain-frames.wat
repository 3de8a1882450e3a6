;; The loops over rings for plain frames. Compiled to plain-frames.wasm.ts by `node scripts/wasm.ts`.
;; Tables are frame tables (`memory/copy.ts`, FRAME_TABLE), jobs those of a CopyQueue.
;;
;; collect(words, i, end, table, slot, last, low, high, delta): reads transmit descriptors i … end - 1 of
;; those at `words` (memory of the lane) into slots `slot` … last - 1 of `table`. Stops at the first that is
;; not a data descriptor for a whole frame of 14 to 15872 bytes with nothing to be done, in memory of
;; [low, high), the range of guest addresses that lies `delta` away in the arena; returns its slot.
;;
;; report(words, i, end, where): sets DD in descriptors i … end - 1 of those at `words` that ask for it, in
;; the guest's ring: `where` (f64) has the address of each, from descriptor i on. Returns how many did.
;;
;; fill(table, list, first, count, ring, end, low, high, delta, room, jobs, done): puts frames
;; list[first … count - 1] (bytes: indexes into the table) into the buffers of the receive descriptors from
;; `ring` up to `end`: writes one or two jobs for each, and at `done` what is to be written back. Stops at
;; the first frame that is in pieces, has offloads or a tag, is shorter than 60 bytes or longer than `room`,
;; is IPv4 with options, is not in the window, or whose buffer is not in [low, high). Returns how many were
;; put, and 256 times the jobs; `bytes` of the table is the sum of their lengths.
;;
;; finish(done, count, where): writes descriptors back, each to its address in `where` (f64): first all but
;; the third words, then those, which have the status.
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  (func (export "collect")
    (param $words i32) (param $i i32) (param $end i32)
    (param $table i32) (param $slot i32) (param $last i32)
    (param $low f64) (param $high f64) (param $delta f64)
    (result i32)
    (local $bytes i32) (local $guest f64) (local $word i32)
    (local.set $words (i32.add (local.get $words) (i32.shl (local.get $i) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
        (br_if $done (i32.ge_u (local.get $slot) (local.get $last)))
        (local.set $bytes (i32.load offset=8 (local.get $words)))
        ;; DEXT, DTYP, EOP, VLE and TSE
        (br_if $done
          (i32.ne (i32.and (local.get $bytes) (i32.const 0xe1f00000)) (i32.const 0x21300000)))
        ;; IXSM and TXSM
        (br_if $done
          (i32.and (i32.load offset=12 (local.get $words)) (i32.const 0x300)))
        (local.set $bytes (i32.and (local.get $bytes) (i32.const 0xffff)))
        (br_if $done
          (i32.gt_u (i32.sub (local.get $bytes) (i32.const 14)) (i32.const 15858)))
        ;; An address from 2^63 on is negative here, and in no range.
        (local.set $guest (f64.convert_i64_s (i64.load (local.get $words))))
        (br_if $done (f64.lt (local.get $guest) (local.get $low)))
        (br_if $done
          (f64.gt
            (f64.add (local.get $guest) (f64.convert_i32_u (local.get $bytes)))
            (local.get $high)))
        (f64.store
          (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 3)))
          (f64.add (local.get $guest) (local.get $delta)))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 2))))
        (i32.store offset=1024 (local.get $word) (local.get $bytes))
        (i32.store offset=2304 (local.get $word) (local.get $bytes))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
        (local.set $words (i32.add (local.get $words) (i32.const 16)))
        (br $next)))
    (local.get $slot))

  (func (export "report")
    (param $words i32) (param $i i32) (param $end i32) (param $where i32)
    (result i32)
    (local $reports i32)
    (local.set $words (i32.add (local.get $words) (i32.shl (local.get $i) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
        ;; RS
        (if (i32.and (i32.load offset=8 (local.get $words)) (i32.const 0x08000000))
          (then
            (i32.store offset=12
              (i32.trunc_f64_u (f64.load (local.get $where)))
              (i32.or (i32.load offset=12 (local.get $words)) (i32.const 1)))
            (local.set $reports (i32.add (local.get $reports) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (local.set $words (i32.add (local.get $words) (i32.const 16)))
        (local.set $where (i32.add (local.get $where) (i32.const 8)))
        (br $next)))
    (local.get $reports))

  ;; The packet type's bit of an IP protocol.
  (func $transport (param $protocol i32) (result i32)
    (if (i32.eq (local.get $protocol) (i32.const 6)) (then (return (i32.const 0x100))))
    (if (i32.eq (local.get $protocol) (i32.const 17)) (then (return (i32.const 0x200))))
    (select (i32.const 0x400) (i32.const 0) (i32.eq (local.get $protocol) (i32.const 132))))

  (func (export "fill")
    (param $table i32) (param $list i32) (param $first i32) (param $count i32)
    (param $ring i32) (param $end i32)
    (param $low f64) (param $high f64) (param $delta f64)
    (param $room i32) (param $jobs i32) (param $done i32)
    (result i32)
    (local $i i32) (local $wide i32) (local $word i32) (local $header i32) (local $length i32)
    (local $skip i32) (local $rest i32) (local $frame i32) (local $type i32) (local $ether i32)
    (local $guest f64) (local $address f64) (local $to i32) (local $sum i32) (local $made i32)
    (local.set $i (local.get $first))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (br_if $stop (i32.ge_u (local.get $ring) (local.get $end)))
        (local.set $word (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $wide (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 3))))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $word) (i32.const 2))))
        ;; the frame: in one piece, in the window, without offloads
        (br_if $stop (i32.load offset=2048 (local.get $word)))
        (local.set $address (f64.load (local.get $wide)))
        (br_if $stop (f64.ge (local.get $address) (f64.const 4292870144)))
        (local.set $header (i32.trunc_f64_u (f64.load offset=512 (local.get $wide))))
        (br_if $stop (i32.load16_u (local.get $header)))
        (local.set $header (i32.add (local.get $header) (i32.const 12)))
        (local.set $length (i32.sub (i32.load offset=1280 (local.get $word)) (i32.const 12)))
        (local.set $skip (i32.load offset=1536 (local.get $word)))
        (local.set $rest (i32.load offset=1024 (local.get $word)))
        (local.set $rest
          (select
            (i32.sub (local.get $rest) (local.get $skip))
            (i32.const 0)
            (i32.gt_u (local.get $rest) (local.get $skip))))
        (local.set $frame (i32.add (local.get $length) (local.get $rest)))
        (br_if $stop (i32.lt_u (local.get $frame) (i32.const 60)))
        (br_if $stop (i32.gt_u (local.get $frame) (local.get $room)))
        ;; its type: the EtherType is big-endian
        (local.set $type (i32.const 0))
        (local.set $ether (i32.load16_u offset=12 (local.get $header)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0x0081)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0xa888)))
        (if (i32.eq (local.get $ether) (i32.const 0x0008))
          (then
            (br_if $stop (i32.lt_u (local.get $length) (i32.const 34)))
            (br_if $stop
              (i32.ne
                (i32.and (i32.load8_u offset=14 (local.get $header)) (i32.const 0xf))
                (i32.const 5)))
            (local.set $type (i32.const 0x10))
            ;; a whole packet: no fragments follow, and none went before
            (if
              (i32.eqz
                (i32.and (i32.load16_u offset=20 (local.get $header)) (i32.const 0xff3f)))
              (then
                (local.set $type
                  (i32.or
                    (i32.const 0x10)
                    (call $transport (i32.load8_u offset=23 (local.get $header)))))))))
        (if (i32.eq (local.get $ether) (i32.const 0xdd86))
          (then
            (br_if $stop (i32.lt_u (local.get $length) (i32.const 54)))
            (local.set $type
              (i32.or
                (i32.const 0x40)
                (call $transport (i32.load8_u offset=20 (local.get $header)))))))
        ;; the buffer
        (local.set $guest (f64.convert_i64_s (i64.load (local.get $ring))))
        (br_if $stop (f64.lt (local.get $guest) (local.get $low)))
        (br_if $stop
          (f64.gt
            (f64.add (local.get $guest) (f64.convert_i32_u (local.get $frame)))
            (local.get $high)))
        (local.set $to (i32.trunc_f64_u (f64.add (local.get $guest) (local.get $delta))))
        (i32.store (local.get $jobs) (local.get $to))
        (i32.store offset=4 (local.get $jobs) (local.get $header))
        (i32.store offset=8 (local.get $jobs) (local.get $length))
        (local.set $jobs (i32.add (local.get $jobs) (i32.const 12)))
        (local.set $made (i32.add (local.get $made) (i32.const 256)))
        (if (local.get $rest)
          (then
            (i32.store (local.get $jobs) (i32.add (local.get $to) (local.get $length)))
            (i32.store offset=4 (local.get $jobs)
              (i32.add (i32.trunc_f64_u (local.get $address)) (local.get $skip)))
            (i32.store offset=8 (local.get $jobs) (local.get $rest))
            (local.set $jobs (i32.add (local.get $jobs) (i32.const 12)))
            (local.set $made (i32.add (local.get $made) (i32.const 256)))))
        ;; type; no hash; DD and EOP; length
        (i32.store (local.get $done) (local.get $type))
        (i32.store offset=4 (local.get $done) (i32.const 0))
        (i32.store offset=8 (local.get $done) (i32.const 3))
        (i32.store offset=12 (local.get $done) (local.get $frame))
        (local.set $sum (i32.add (local.get $sum) (local.get $frame)))
        (local.set $done (i32.add (local.get $done) (i32.const 16)))
        (local.set $ring (i32.add (local.get $ring) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store offset=2944 (local.get $table) (local.get $sum))
    (i32.or (local.get $made) (i32.sub (local.get $i) (local.get $first))))

  (func (export "finish") (param $done i32) (param $count i32) (param $where i32)
    (local $i i32) (local $at i32) (local $from i32)
    (local.set $from (local.get $done))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $at
          (i32.trunc_f64_u
            (f64.load (i32.add (local.get $where) (i32.shl (local.get $i) (i32.const 3))))))
        (i64.store (local.get $at) (i64.load (local.get $from)))
        (i32.store offset=12 (local.get $at) (i32.load offset=12 (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (atomic.fence)
    (local.set $i (i32.const 0))
    (local.set $from (local.get $done))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (i32.store offset=8
          (i32.trunc_f64_u
            (f64.load (i32.add (local.get $where) (i32.shl (local.get $i) (i32.const 3)))))
          (i32.load offset=8 (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))))
