import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Asks for what the broker does not serve, and prints how that ended: `transactions BOOTSTRAP` or `group BOOTSTRAP TOPIC`. */
public final class RefusedClient {
    public static void main(String[] arguments) {
        long started = System.nanoTime();
        String outcome;
        try {
            outcome = arguments[0].equals("group") ? group(arguments[1], arguments[2]) : transactions(arguments[1]);
        } catch (Exception error) {
            outcome = error.getClass().getSimpleName();
        }
        System.out.println(outcome + " " + (System.nanoTime() - started) / 1_000_000);
    }

    private static String transactions(String bootstrap) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "transactional.id", "refused");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            return "none";
        }
    }

    private static String group(String bootstrap, String topic) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "group.id", "refused");
        try (var consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            return "records " + consumer.poll(Duration.ofMillis(1500)).count();
        }
    }
}
