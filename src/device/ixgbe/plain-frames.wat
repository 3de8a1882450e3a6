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
;; fill(table, list, first, count, ring, end, low, high, delta, room, jobs, done, status, verify, hashes): puts
;; frames list[first … count - 1] (bytes: indexes into the table) into the buffers of the receive descriptors
;; from `ring` up to `end`: writes one or two jobs for each, and at `done` what is to be written back, with the
;; bits `status` and, if `verify` is not 0, those of its checksums. `hashes`, if not 0, has a hash and 256 bytes
;; on an RSS type (u32) for each frame of the table. Stops at the first frame that is in pieces, has offloads or
;; a tag, is shorter than 60 bytes or longer than `room`, is IPv4 with options, is not in the window, or whose
;; buffer is not in [low, high). Returns how many were put, and 256 times the jobs; `bytes` of the table is the
;; sum of their lengths.
;;
;; finish(done, count, where): writes descriptors back, each to its address in `where` (f64): first all but
;; the third words, then those, which have the status.
(module
  (memory (import "sluice" "window") 65536 65536 shared)
  ;; net/checksum.wat: the sum of n bytes as little-endian words, folded to 16 bits
  (func $sum (import "sluice" "sum") (param $from i32) (param $n i32) (result i32))

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

  ;; Exchanges the two bytes of a number of 16 bits.
  (func $swap (param $value i32) (result i32)
    (i32.or
      (i32.shl (i32.and (local.get $value) (i32.const 0xff)) (i32.const 8))
      (i32.shr_u (local.get $value) (i32.const 8))))

  ;; Whether a sum of words, their checksum among them, is all ones (RFC 1071). It is below 2^40, and not 0.
  (func $isGood (param $sum i64) (result i32)
    (local.set $sum
      (i64.add
        (i64.and (local.get $sum) (i64.const 0xffff))
        (i64.shr_u (local.get $sum) (i64.const 16))))
    (local.set $sum
      (i64.add
        (i64.and (local.get $sum) (i64.const 0xffff))
        (i64.shr_u (local.get $sum) (i64.const 16))))
    (i64.eq
      (i64.add
        (i64.and (local.get $sum) (i64.const 0xffff))
        (i64.shr_u (local.get $sum) (i64.const 16)))
      (i64.const 0xffff)))

  ;; Status and error bits of a frame's checksums, as `receive-checksum.ts` finds them: `length` bytes are at
  ;; `header`, the others at `rest`, `frame` in all. Of IPv4 without options; 34 bytes (IPv6: 54) are there.
  (func $verify
    (param $header i32) (param $length i32) (param $rest i32) (param $frame i32) (param $ether i32)
    (result i32)
    (local $status i32) (local $start i32) (local $size i32) (local $protocol i32) (local $near i32)
    (local $sum i64)
    (if (i32.eq (local.get $ether) (i32.const 0x0008))
      (then
        (local.set $sum
          (i64.add (i64.load32_u offset=26 (local.get $header)) (i64.load32_u offset=30 (local.get $header))))
        (if
          (i32.eqz
            (call $isGood
              (i64.add
                (i64.add
                  (i64.load32_u offset=14 (local.get $header))
                  (i64.load32_u offset=18 (local.get $header)))
                (i64.add (i64.load32_u offset=22 (local.get $header)) (local.get $sum)))))
          ;; IPCS and IPE
          (then (return (i32.const 0x80000040))))
        (local.set $status (i32.const 0x40))
        ;; a fragment
        (if (i32.and (i32.load16_u offset=20 (local.get $header)) (i32.const 0xff3f))
          (then (return (local.get $status))))
        (local.set $size (call $swap (i32.load16_u offset=16 (local.get $header))))
        (if (i32.lt_u (local.get $size) (i32.const 20)) (then (return (local.get $status))))
        (local.set $size (i32.sub (local.get $size) (i32.const 20)))
        (local.set $start (i32.const 34))
        (local.set $protocol (i32.load8_u offset=23 (local.get $header))))
      (else
        (if (i32.ne (local.get $ether) (i32.const 0xdd86)) (then (return (i32.const 0))))
        (local.set $sum
          (i64.add
            (i64.add
              (i64.add
                (i64.load32_u offset=22 (local.get $header))
                (i64.load32_u offset=26 (local.get $header)))
              (i64.add
                (i64.load32_u offset=30 (local.get $header))
                (i64.load32_u offset=34 (local.get $header))))
            (i64.add
              (i64.add
                (i64.load32_u offset=38 (local.get $header))
                (i64.load32_u offset=42 (local.get $header)))
              (i64.add
                (i64.load32_u offset=46 (local.get $header))
                (i64.load32_u offset=50 (local.get $header))))))
        (local.set $size (call $swap (i32.load16_u offset=18 (local.get $header))))
        (local.set $start (i32.const 54))
        (local.set $protocol (i32.load8_u offset=20 (local.get $header)))))
    ;; a packet that is cut off
    (if (i32.gt_u (i32.add (local.get $start) (local.get $size)) (local.get $frame))
      (then (return (local.get $status))))
    ;; as the slow path, which wants eight bytes of the transport header
    (if (i32.gt_u (i32.add (local.get $start) (i32.const 8)) (local.get $length))
      (then (return (local.get $status))))
    (if (i32.eq (local.get $protocol) (i32.const 17))
      (then
        ;; RFC 768: zero says that the sender made none
        (if
          (i32.eqz (i32.load16_u offset=6 (i32.add (local.get $header) (local.get $start))))
          (then (return (local.get $status))))
        ;; UDPV
        (local.set $status (i32.or (local.get $status) (i32.const 0x10))))
      (else
        (if (i32.ne (local.get $protocol) (i32.const 6)) (then (return (local.get $status))))))
    ;; L4CS
    (local.set $status (i32.or (local.get $status) (i32.const 0x20)))
    (local.set $near (i32.sub (local.get $length) (local.get $start)))
    (local.set $near
      (select (local.get $size) (local.get $near) (i32.lt_u (local.get $size) (local.get $near))))
    (local.set $sum
      (i64.add
        (local.get $sum)
        (i64.extend_i32_u
          (i32.add
            (i32.add
              (i32.shl (local.get $protocol) (i32.const 8))
              (call $swap (local.get $size)))
            (call $sum (i32.add (local.get $header) (local.get $start)) (local.get $near))))))
    (if (i32.gt_u (local.get $size) (local.get $near))
      (then
        (local.set $size (call $sum (local.get $rest) (i32.sub (local.get $size) (local.get $near))))
        ;; what begins at an odd place has its bytes on the other side of the words
        (if (i32.and (local.get $near) (i32.const 1))
          (then (local.set $size (call $swap (local.get $size)))))
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (local.get $size))))))
    ;; L4E
    (if (i32.eqz (call $isGood (local.get $sum)))
      (then (local.set $status (i32.or (local.get $status) (i32.const 0x40000000)))))
    (local.get $status))

  (func (export "fill")
    (param $table i32) (param $list i32) (param $first i32) (param $count i32)
    (param $ring i32) (param $end i32)
    (param $low f64) (param $high f64) (param $delta f64)
    (param $room i32) (param $jobs i32) (param $done i32)
    (param $status i32) (param $verify i32) (param $hashes i32)
    (result i32)
    (local $hash i32) (local $bits i32) (local $touched i64)
    (local $i i32) (local $wide i32) (local $word i32) (local $header i32) (local $length i32)
    (local $skip i32) (local $rest i32) (local $frame i32) (local $type i32) (local $ether i32)
    (local $guest f64) (local $address f64) (local $to i32) (local $from i32) (local $sum i32)
    (local $made i32)
    (local.set $i (local.get $first))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (br_if $stop (i32.ge_u (local.get $ring) (local.get $end)))
        (local.set $word (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $hash (i32.add (local.get $hashes) (i32.shl (local.get $word) (i32.const 2))))
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
        (br_if $stop (i32.ne (local.get $frame) (i32.load offset=1792 (local.get $word))))
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
        ;; The buffer's first bytes are asked for while the processor goes on to the next frame.
        (local.set $touched (i64.xor (local.get $touched) (i64.load (local.get $to))))
        (local.set $from (i32.add (i32.trunc_f64_u (local.get $address)) (local.get $skip)))
        (local.set $bits (local.get $status))
        (if (local.get $verify)
          (then
            (local.set $bits
              (i32.or
                (local.get $bits)
                (call $verify
                  (local.get $header) (local.get $length) (local.get $from) (local.get $frame)
                  (local.get $ether))))))
        (i32.store (local.get $jobs) (local.get $to))
        (i32.store offset=4 (local.get $jobs) (local.get $header))
        (i32.store offset=8 (local.get $jobs) (local.get $length))
        (local.set $jobs (i32.add (local.get $jobs) (i32.const 12)))
        (local.set $made (i32.add (local.get $made) (i32.const 256)))
        (if (local.get $rest)
          (then
            (i32.store (local.get $jobs) (i32.add (local.get $to) (local.get $length)))
            (i32.store offset=4 (local.get $jobs) (local.get $from))
            (i32.store offset=8 (local.get $jobs) (local.get $rest))
            (local.set $jobs (i32.add (local.get $jobs) (i32.const 12)))
            (local.set $made (i32.add (local.get $made) (i32.const 256)))))
        ;; types; hash; status with DD and EOP; length
        (if (local.get $hashes)
          (then
            (i32.store (local.get $done)
              (i32.or (local.get $type) (i32.load offset=256 (local.get $hash))))
            (i32.store offset=4 (local.get $done) (i32.load (local.get $hash))))
          (else
            (i32.store (local.get $done) (local.get $type))
            (i32.store offset=4 (local.get $done) (i32.const 0))))
        (i32.store offset=8 (local.get $done) (i32.or (local.get $bits) (i32.const 3)))
        (i32.store offset=12 (local.get $done) (local.get $frame))
        (local.set $sum (i32.add (local.get $sum) (local.get $frame)))
        (local.set $done (i32.add (local.get $done) (i32.const 16)))
        (local.set $ring (i32.add (local.get $ring) (i32.const 16)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store offset=2944 (local.get $table) (local.get $sum))
    (i64.store offset=2952 (local.get $table) (local.get $touched))
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
