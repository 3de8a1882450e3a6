# Has a file system make promises, and tells whether it has kept them. Runs inside guests.
#
#   promises.pl work DIRECTORY WORKER          until it is killed; says what was promised on the console
#   promises.pl check DIRECTORY WORKER COUNT   prints what is broken of WORKER's first COUNT promises
#   promises.pl dirty DIRECTORY                writes without asking for any promise, until it is killed
#
# Promise N is that of fsync(2), of the files and their directory, after step N of a worker:
# - the file fN has been written, unless N is divisible by 4 and step N + 8 was done: it is deleted then;
# - the log has a record more, and a block in the middle of a file has been overwritten;
# - if N is divisible by 3, `current` has been replaced by rename(2).
use strict;
use warnings;
use Fcntl;
use IO::Handle;

my $record_bytes = 32;
my $slots = 8;
my $slot_bytes = 512;

my ($verb, $directory, $worker, $count) = @ARGV;

sub content {
    my ($n) = @_;
    my $line = "$worker $n\n";
    my $bytes = 1 + ($n * 7919) % 20011;
    return substr($line x (1 + $bytes / length $line), 0, $bytes);
}

sub slot_content { my ($n) = @_; return sprintf "%-${slot_bytes}s", "$worker $n" }
sub record { my ($n) = @_; return sprintf "%-" . ($record_bytes - 1) . "s\n", "$worker $n" }

sub open_or_die {
    my ($path, $flags) = @_;
    sysopen(my $handle, $path, $flags, 0644) or die "$path: $!\n";
    return $handle;
}

sub put {
    my ($handle, $bytes) = @_;
    my $done = syswrite $handle, $bytes;
    die "a write: $!\n" unless defined $done && $done == length $bytes;
}

sub sync_or_die { my ($handle) = @_; $handle->sync or die "fsync: $!\n" }

sub sync_directory {
    my ($path) = @_;
    sync_or_die(open_or_die($path, O_RDONLY | O_DIRECTORY));
}

sub write_file {
    my ($path, $bytes) = @_;
    my $file = open_or_die($path, O_WRONLY | O_CREAT | O_TRUNC);
    put($file, $bytes);
    sync_or_die($file);
}

sub read_file {
    my ($path) = @_;
    sysopen(my $file, $path, O_RDONLY) or return undef;
    local $/;
    return readline($file) // '';
}

sub work {
    my $console = open_or_die('/dev/console', O_WRONLY);
    my $log = open_or_die("$directory/log", O_WRONLY | O_CREAT | O_APPEND);
    write_file("$directory/slots", "\0" x ($slots * $slot_bytes));
    my $slots_file = open_or_die("$directory/slots", O_WRONLY);
    for (my $n = 1;; $n++) {
        write_file("$directory/f$n", content($n));
        put($log, record($n));
        sync_or_die($log);
        sysseek $slots_file, ($n % $slots) * $slot_bytes, 0;
        put($slots_file, slot_content($n));
        sync_or_die($slots_file);
        if ($n % 3 == 0) {
            write_file("$directory/new", content($n));
            rename "$directory/new", "$directory/current" or die "rename: $!\n";
        }
        if ($n % 4 == 0 && $n > 8) {
            unlink "$directory/f" . ($n - 8) or die "unlink: $!\n";
        }
        sync_directory($directory);
        put($console, "kept $worker $n\n");
    }
}

sub check {
    for my $n (1 .. $count) {
        my $found = read_file("$directory/f$n");
        my $may_be_gone = $n % 4 == 0;
        if ($may_be_gone && $n + 8 <= $count) {
            print "$worker: f$n is there, and was deleted\n" if defined $found;
        } elsif (!defined $found) {
            print "$worker: f$n is not there\n" unless $may_be_gone;
        } elsif ($found ne content($n)) {
            print "$worker: f$n has another content\n";
        }
    }
    my $log = read_file("$directory/log") // '';
    for my $n (1 .. $count) {
        my $found = substr $log, ($n - 1) * $record_bytes, $record_bytes;
        print "$worker: record $n is not in the log\n" if $found ne record($n);
    }
    my $slots_found = read_file("$directory/slots") // '';
    for my $n ($count - $slots + 1 .. $count) {
        next if $n < 1;
        my $found = substr $slots_found, ($n % $slots) * $slot_bytes, $slot_bytes;
        my ($later) = $found =~ /^\Q$worker\E (\d+) *$/;
        print "$worker: block $n was not overwritten\n"
            unless defined $later && $later >= $n && $later % $slots == $n % $slots;
    }
    if ($count >= 3) {
        my $found = read_file("$directory/current") // '';
        my ($later) = $found =~ /^\Q$worker\E (\d+)\n/;
        print "$worker: current is not what step $count or a later one made\n"
            unless defined $later && $later >= $count - $count % 3 && $found eq content($later);
    }
}

sub dirty {
    for (my $n = 0;; $n++) {
        my $path = "$directory/dirty" . $n % 5;
        unlink $path if $n % 7 == 0;
        my $file = open_or_die($path, O_WRONLY | O_CREAT | O_TRUNC);
        put($file, chr(33 + $n % 90) x (1 + ($n * 7919) % 200_000));
        # An fsync waits for what others have written: leave the workers some time.
        select undef, undef, undef, 0.02;
    }
}

my %verbs = (work => \&work, check => \&check, dirty => \&dirty);
($verbs{$verb // ''} // die "usage: promises.pl work|check|dirty DIRECTORY ...\n")->();
