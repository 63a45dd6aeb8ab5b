import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

/**
 * Kafka's own assignors: reads cases, prints who gets what. A case is
 *
 *   case NAME | topic NAME RACKS,RACKS,... (of each partition, with + between; - for none)
 *   member ID INSTANCE RACK TOPICS OWNED GENERATION USERDATA (- for nothing; topics and t:p with , between; hex) | end
 */
public final class AssignorTool {
    private static final Map<String, ConsumerPartitionAssignor> ASSIGNORS = Map.of(
        "range", new RangeAssignor(), "roundrobin", new RoundRobinAssignor(),
        "sticky", new StickyAssignor(), "cooperative-sticky", new CooperativeStickyAssignor());

    public static void main(String[] arguments) throws Exception {
        var reader = new BufferedReader(new InputStreamReader(System.in));
        String assignor = "";
        Map<String, Node> nodes = new TreeMap<>();
        List<PartitionInfo> partitions = new ArrayList<>();
        Map<String, ConsumerPartitionAssignor.Subscription> members = new TreeMap<>();
        for (String line; (line = reader.readLine()) != null; ) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "case" -> {
                    assignor = words[1];
                    nodes.clear();
                    partitions.clear();
                    members.clear();
                }
                case "topic" -> {
                    int index = 0;
                    for (String racks : words[2].split(",")) {
                        Node[] replicas = Arrays.stream(racks.split("\\+"))
                            .map(rack -> nodes.computeIfAbsent(
                                rack, r -> new Node(nodes.size(), "host", 1, r.equals("-") ? null : r)))
                            .toArray(Node[]::new);
                        partitions.add(new PartitionInfo(words[1], index++, replicas[0], replicas, replicas));
                    }
                }
                case "member" -> {
                    ByteBuffer data = words[7].equals("-") ? null : ByteBuffer.wrap(HexFormat.of().parseHex(words[7]));
                    var subscription = new ConsumerPartitionAssignor.Subscription(
                        some(words[4]), data, some(words[5]).stream().map(AssignorTool::partition).toList(),
                        Integer.parseInt(words[6]), words[3].equals("-") ? Optional.empty() : Optional.of(words[3]));
                    if (!words[2].equals("-")) {
                        subscription.setGroupInstanceId(Optional.of(words[2]));
                    }
                    members.put(words[1], subscription);
                }
                default -> {
                    var cluster = new Cluster("id", nodes.values(), partitions, Set.of(), Set.of());
                    var shares = ASSIGNORS.get(assignor)
                        .assign(cluster, new ConsumerPartitionAssignor.GroupSubscription(members)).groupAssignment();
                    System.out.println(new TreeMap<>(shares).entrySet().stream()
                        .map(share -> share.getKey() + "=" + share.getValue().partitions().stream()
                            .map(tp -> tp.topic() + ":" + tp.partition()).sorted().collect(Collectors.joining(",")))
                        .collect(Collectors.joining(" ")));
                }
            }
        }
    }

    private static List<String> some(String text) {
        return text.equals("-") ? List.of() : List.of(text.split(","));
    }

    private static TopicPartition partition(String text) {
        String[] parts = text.split(":");
        return new TopicPartition(parts[0], Integer.parseInt(parts[1]));
    }
}
