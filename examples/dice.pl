# Rolls the dice of examples/dice.ts, in a guest of Linux with an IOMMU: a driver in user space over VFIO.
#
#   perl dice.pl 0000:00:04.0 COUNT [SIDES]
#
# The function must be bound to vfio-pci. Prints the numbers, then how many interrupts came.
use strict;
use warnings;
use Fcntl;
use POSIX ();

# <linux/vfio.h>: the requests, and what they take.
my ($SET_IOMMU, $SET_CONTAINER, $GET_DEVICE, $SET_IRQS, $MAP_DMA) = (0x3b66, 0x3b68, 0x3b6a, 0x3b6e, 0x3b71);
my $TYPE1 = 3;
my $READ_AND_WRITE = 3;
my $EVENTFD_TRIGGER = 0x24;
my ($BAR0, $CONFIG) = (0, 7 << 40);
my $MSI = 1;
# pread64, pwrite64 and eventfd2: Perl has no words for them.
my ($PREAD, $PWRITE, $EVENTFD) = (POSIX::uname())[4] eq 'x86_64' ? (17, 18, 290) : (67, 68, 19);
# Registers of the dice.
my ($SIDES, $ADDRESS, $ADDRESS_HIGH, $ROLL, $STATUS) = (4, 8, 12, 16, 20);
my $PAGE = 4096;
my $IOVA = 0x1_0000_0000;

my ($address, $count, $sides) = @ARGV;

sub open_or_die {
    my ($path) = @_;
    sysopen(my $handle, $path, O_RDWR) or die "$path: $!\n";
    return $handle;
}

sub control {
    my ($handle, $request, $argument) = @_;
    my $result = ioctl($handle, $request, $argument);
    defined $result or die sprintf "ioctl 0x%x: %s\n", $request, $!;
    return $result + 0;
}

my $container = open_or_die('/dev/vfio/vfio');
my ($group_number) = (readlink("/sys/bus/pci/devices/$address/iommu_group") // die "$address: $!\n") =~ /(\d+)$/;
my $group = open_or_die("/dev/vfio/$group_number");
control($group, $SET_CONTAINER, pack('i', fileno $container));
control($container, $SET_IOMMU, $TYPE1);
my $fd = control($group, $GET_DEVICE, "$address\0");
open(my $device, '+<&=', $fd) or die "$address: $!\n";

sub get {
    my ($offset) = @_;
    my $bytes = "\0" x 4;
    syscall($PREAD, $fd, $bytes, 4, $offset) == 4 or die "read at $offset: $!\n";
    return unpack('V', $bytes);
}

sub set {
    my ($offset, $value) = @_;
    my $bytes = pack('V', $value);
    syscall($PWRITE, $fd, $bytes, 4, $offset) == 4 or die "write at $offset: $!\n";
}

# A page of this process, which the function finds at $IOVA.
my $memory = "\0" x (2 * $PAGE);
my $at = unpack('J', pack('P', $memory));
my $skip = -$at % $PAGE;
control($container, $MAP_DMA, pack('LLQQQ', 32, $READ_AND_WRITE, $at + $skip, $IOVA, $PAGE));

# Memory and bus mastering on, in the command register; message 0 goes to an eventfd.
set($CONFIG + 4, 6);
my $event = syscall($EVENTFD, 0, 0);
open(my $interrupts, '+<&=', $event) or die "eventfd: $!\n";
control($device, $SET_IRQS, pack('LLLLLi', 24, $EVENTFD_TRIGGER, $MSI, 0, 1, $event));

set($BAR0 + $SIDES, $sides) if defined $sides;
set($BAR0 + $ADDRESS, $IOVA & 0xffff_ffff);
set($BAR0 + $ADDRESS_HIGH, $IOVA >> 32);
set($BAR0 + $ROLL, $count);
# Ends this program if no interrupt comes.
alarm 10;
sysread($interrupts, my $counter, 8) or die "eventfd: $!\n";
my $status = get($BAR0 + $STATUS);
set($BAR0 + $STATUS, $status);
$status == 1 or die "status $status: the dice fell off the table\n";
print join(' ', unpack('C*', substr($memory, $skip, $count))), "\n";
print unpack('Q', $counter), " interrupt\n";
