import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Prints the names of the metrics of Kafka's own clients: kind of client, group, name, separated by tabs. */
public final class ClientMetrics {
    private static void print(String kind, Iterable<MetricName> names) {
        for (MetricName name : names) {
            System.out.println(kind + "\t" + name.group() + "\t" + name.name());
        }
    }

    public static void main(String[] arguments) {
        for (String protocol : List.of("classic", "consumer")) {
            Map<String, Object> settings =
                Map.of("bootstrap.servers", "127.0.0.1:1", "group.id", "g", "group.protocol", protocol);
            try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
                print(protocol, consumer.metrics().keySet());
                consumer.close(Duration.ZERO);
            }
        }
        Map<String, Object> settings = Map.of("bootstrap.servers", "127.0.0.1:1");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            print("producer", producer.metrics().keySet());
            producer.close(Duration.ZERO);
        }
    }
}
